#include "tests/testing/cuda_on_cpu/meaning.h"

#include <emmintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/tensor/half.h"

namespace weft::cuda_on_cpu {

float element_of(Element kind, uint32_t word, unsigned half) {
  const auto bits = static_cast<uint16_t>(word >> 16 * half);
  switch (kind) {
    case Element::kBfloat16:
      return std::bit_cast<float>(uint32_t{bits} << 16);
    case Element::kFloat16:
      return float16::widen(bits);
    case Element::kTf32:
      break;
  }
  return std::bit_cast<float>(word & ~0x1FFFU);
}

uint32_t round_to_tf32(float value) {
  const uint32_t word = std::bit_cast<uint32_t>(value);
  if ((word & 0x7F800000U) == 0x7F800000U) return word;
  return (word + 0x1000U) & ~0x1FFFU;
}

void load_matrices_of(const Lanes<const void*>& rows, bool transposed, const Lanes<uint32_t*>& r) {
  uint16_t matrix[4][8][8];
  for (int lane = 0; lane < 32; ++lane) std::memcpy(matrix[lane / 8][lane % 8], rows[lane], 16);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = transposed ? matrix[i][2 * t][g] : matrix[i][g][2 * t];
      const uint32_t high = transposed ? matrix[i][2 * t + 1][g] : matrix[i][g][2 * t + 1];
      r[lane][i] = low | high << 16;
    }
  }
}

namespace {

struct Operands {
  float a[16][16], b[16][8];
};

void gather(Element kind, int lane, const uint32_t* a, const uint32_t* b, Operands& all) {
  const int g = lane / 4, t = lane % 4;
  const bool wide = kind == Element::kTf32;
  for (int i = 0; i < 4; ++i) {
    const int row = g + i % 2 * 8;
    if (wide) all.a[row][t + i / 2 * 4] = element_of(kind, a[i], 0);
    for (unsigned half = 0; half < 2 && !wide; ++half) {
      all.a[row][2 * t + i / 2 * 8 + static_cast<int>(half)] = element_of(kind, a[i], half);
    }
  }
  for (int i = 0; i < 2; ++i) {
    if (wide) all.b[t + i * 4][g] = element_of(kind, b[i], 0);
    for (unsigned half = 0; half < 2 && !wide; ++half) {
      all.b[2 * t + i * 8 + static_cast<int>(half)][g] = element_of(kind, b[i], half);
    }
  }
}

// One side of an element's products.
struct Factors {
  alignas(16) double value[16];
  alignas(16) int16_t exponent[16];
};

// Of a zero, that of the least normal float.
int exponent_of(float value, int least) {
  const int field = static_cast<int>(std::bit_cast<uint32_t>(value) >> 23 & 0xFF);
  return value == 0 ? -126 : std::max(field - 127, least);
}

Factors factors_of(Element kind, const float* from, int step, int count) {
  Factors factors;
  for (int k = 0; k < count; ++k) {
    factors.value[k] = static_cast<double>(from[k * step]);
    factors.exponent[k] =
        static_cast<int16_t>(exponent_of(from[k * step], kind == Element::kFloat16 ? -14 : -126));
  }
  return factors;
}

double power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<uint64_t>(1023 + exponent) << 52);
}

float toward_zero(double value) {
  const float nearest = static_cast<float>(value);
  const bool beyond = std::abs(static_cast<double>(nearest)) > std::abs(value);
  // A branch would be taken at every other product, at random.
  const auto less = static_cast<uint32_t>(beyond & !std::isinf(nearest));
  return std::bit_cast<float>(std::bit_cast<uint32_t>(nearest) - less);
}

double sum_of(__m128d pair) {
  return _mm_cvtsd_f64(pair) + _mm_cvtsd_f64(_mm_unpackhi_pd(pair, pair));
}

int largest_of(__m128i eight) {
  eight = _mm_max_epi16(eight, _mm_shuffle_epi32(eight, 0b01'00'11'10));
  eight = _mm_max_epi16(eight, _mm_shuffle_epi32(eight, 0b10'11'00'01));
  const int two = _mm_cvtsi128_si32(eight);
  return std::max<int16_t>(static_cast<int16_t>(two), static_cast<int16_t>(two >> 16));
}

// meaning.h, multiply_of. Two terms at a time: neither whether a sum is finite nor a sum of whole
// numbers follows from the order. A third of these tests' time goes here.
template <int kDepth>
float fused_sum(const Factors& a, const Factors& b, float c) {
  constexpr int kKeptBits = 25;
  __m128d products[kDepth / 2], plain = _mm_set_sd(static_cast<double>(c));
  for (int k = 0; k < kDepth; k += 2) {
    products[k / 2] = _mm_mul_pd(_mm_load_pd(a.value + k), _mm_load_pd(b.value + k));
    plain = _mm_add_pd(plain, products[k / 2]);
  }
  if (!std::isfinite(sum_of(plain))) return static_cast<float>(sum_of(plain));
  __m128i largest_eight = _mm_set1_epi16(static_cast<int16_t>(exponent_of(c, -126)));
  for (int k = 0; k < kDepth; k += 8) {
    const auto eight = [k](const Factors& x) {
      return _mm_load_si128(reinterpret_cast<const __m128i*>(x.exponent + k));
    };
    largest_eight = _mm_max_epi16(largest_eight, _mm_add_epi16(eight(a), eight(b)));
  }
  const int largest = largest_of(largest_eight);
  const __m128d units = _mm_set1_pd(power_of_two(kKeptBits - largest));
  const auto kept = [units](__m128d terms) {  // a product is below 4 units of `largest`
    return _mm_cvtepi32_pd(_mm_cvttpd_epi32(_mm_mul_pd(terms, units)));
  };
  __m128d sums = kept(_mm_set_sd(static_cast<double>(c)));
  for (const __m128d& pair : products) sums = _mm_add_pd(sums, kept(pair));
  return toward_zero(sum_of(sums) * power_of_two(largest - kKeptBits));
}

}  // namespace

void multiply_of(Element kind, const Lanes<float*>& d, const Lanes<const uint32_t*>& a,
                 const Lanes<const uint32_t*>& b) {
  Operands all;
  for (int lane = 0; lane < 32; ++lane) gather(kind, lane, a[lane], b[lane], all);
  const int depth = kind == Element::kTf32 ? 8 : 16;
  Factors rows[16], columns[8];
  for (int row = 0; row < 16; ++row) rows[row] = factors_of(kind, all.a[row], 1, depth);
  for (int i = 0; i < 8; ++i) columns[i] = factors_of(kind, &all.b[0][i], 8, depth);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
      d[lane][i] = depth == 8 ? fused_sum<8>(rows[row], columns[column], d[lane][i])
                              : fused_sum<16>(rows[row], columns[column], d[lane][i]);
    }
  }
}

MatrixView matrix_view(uint64_t descriptor) {
  const auto field = [descriptor](int bit) {
    return static_cast<uint32_t>(descriptor >> bit & 0x3FFF) << 4;
  };
  return {field(0), field(16), field(32), static_cast<unsigned>(descriptor >> 62)};
}

uint32_t element_address(const MatrixView& view, bool by_lines, int line, int k) {
  const auto at = [](int index) { return static_cast<uint32_t>(index); };
  const uint32_t plain = by_lines
                             ? at(k % 8) * 128 + at(k / 8) * view.stride_bytes +
                                   at(line / 64) * view.leading_bytes + at(line % 64) * 2
                             : at(line % 8) * 128 + at(line / 8) * view.stride_bytes + at(k) * 2;
  return swizzled_128(view.address + plain);
}

namespace {

float element_at(Element kind, const std::byte* shared, uint32_t address) {
  uint16_t bits;
  std::memcpy(&bits, shared + address, sizeof(bits));
  return element_of(kind, bits, 0);
}

}  // namespace

void gather_left(Element kind, const Lanes<const uint32_t*>& a, float* to) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      for (unsigned half = 0; half < 2; ++half) {
        const int row = lane / 4 + i % 2 * 8, column = 2 * (lane % 4) + i / 2 * 8;
        to[row * 16 + column + static_cast<int>(half)] = element_of(kind, a[lane][i], half);
      }
    }
  }
}

void gather_left(Element kind, const std::byte* shared, const MatrixView& a, int first_row,
                 float* to) {
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      to[row * 16 + k] = element_at(kind, shared, element_address(a, false, first_row + row, k));
    }
  }
}

void gather_right(Element kind, const std::byte* shared, const MatrixView& b, bool by_columns,
                  int columns, float* to) {
  for (int k = 0; k < 16; ++k) {
    for (int column = 0; column < columns; ++column) {
      to[k * columns + column] =
          element_at(kind, shared, element_address(b, by_columns, column, k));
    }
  }
}

void group_multiply_of(Element kind, const float* a, const float* b, int columns, bool accumulate,
                       const Lanes<float*>& d) {
  Factors rows[16];
  for (int row = 0; row < 16; ++row) rows[row] = factors_of(kind, a + row * 16, 1, 16);
  for (int column = 0; column < columns; ++column) {
    const Factors own = factors_of(kind, b + column, columns, 16);
    for (int row = 0; row < 16; ++row) {
      const int lane = row % 8 * 4 + column % 8 / 2, i = column / 8 * 4 + row / 8 * 2 + column % 2;
      d[lane][i] = fused_sum<16>(rows[row], own, accumulate ? d[lane][i] : 0.0F);
    }
  }
}

}  // namespace weft::cuda_on_cpu
