#include "tests/testing/cuda_on_cpu/meaning.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/tensor/half.h"

namespace weft::cuda_on_cpu {

namespace {

template <Element kind>
float widened(uint32_t word, unsigned half) {
  const auto bits = static_cast<uint16_t>(word >> 16 * half);
  if constexpr (kind == Element::kBfloat16) return std::bit_cast<float>(uint32_t{bits} << 16);
  if constexpr (kind == Element::kFloat16) return float16::widen(bits);
  return std::bit_cast<float>(word & ~0x1FFFU);
}

}  // namespace

float element_of(Element kind, uint32_t word, unsigned half) {
  switch (kind) {
    case Element::kBfloat16:
      return widened<Element::kBfloat16>(word, half);
    case Element::kFloat16:
      return widened<Element::kFloat16>(word, half);
    case Element::kTf32:
      break;
  }
  return widened<Element::kTf32>(word, half);
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

constexpr int kTile = 8;  // columns that are computed together
// Vectors as arguments and results are those of lambdas that are always inlined: wider ones than
// the calling convention knows.
#pragma GCC diagnostic ignored "-Wpsabi"
using Doubles = double __attribute__((vector_size(kTile * sizeof(double))));
using Words = int32_t __attribute__((vector_size(kTile * sizeof(int32_t))));
using Bits = uint32_t __attribute__((vector_size(kTile * sizeof(uint32_t))));
using Longs = int64_t __attribute__((vector_size(kTile * sizeof(int64_t))));
using Shorts = int16_t __attribute__((vector_size(kTile * sizeof(int16_t))));
using Floats = float __attribute__((vector_size(kTile * sizeof(float))));

struct Operands {
  float a[16][16], b[16][kTile];
};

template <Element kind>
void gather(int lane, const uint32_t* a, const uint32_t* b, Operands& all) {
  const int g = lane / 4, t = lane % 4;
  constexpr bool kWide = kind == Element::kTf32;
  for (int i = 0; i < 4; ++i) {
    const int row = g + i % 2 * 8;
    if (kWide) all.a[row][t + i / 2 * 4] = widened<kind>(a[i], 0);
    for (unsigned half = 0; half < 2 && !kWide; ++half) {
      all.a[row][2 * t + i / 2 * 8 + static_cast<int>(half)] = widened<kind>(a[i], half);
    }
  }
  for (int i = 0; i < 2; ++i) {
    if (kWide) all.b[t + i * 4][g] = widened<kind>(b[i], 0);
    for (unsigned half = 0; half < 2 && !kWide; ++half) {
      all.b[2 * t + i * 8 + static_cast<int>(half)][g] = widened<kind>(b[i], half);
    }
  }
}

// Of a zero, that of the least normal float.
int16_t exponent_of(float value, int least) {
  const int field = static_cast<int>(std::bit_cast<uint32_t>(value) >> 23 & 0xFF);
  return static_cast<int16_t>(value == 0 ? -126 : std::max(field - 127, least));
}
int least_exponent(Element kind) { return kind == Element::kFloat16 ? -14 : -126; }

// The rows of one side.
struct Rows {
  double value[16][16];
  int16_t exponent[16][16];
  bool finite = true;
};

Rows rows_of(Element kind, int depth, const float* from) {
  Rows rows;
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < depth; ++k) {
      const float value = from[row * 16 + k];
      rows.value[row][k] = static_cast<double>(value);
      rows.exponent[row][k] = exponent_of(value, least_exponent(kind));
      rows.finite &= std::isfinite(value);
    }
  }
  return rows;
}

// A tile of the other's columns.
struct Columns {
  Doubles value[16];
  Shorts exponent[16];
  bool finite = true;
};

// `step` elements from one k to the next.
Columns columns_of(Element kind, int depth, const float* from, int step) {
  Columns columns;
  for (int k = 0; k < depth; ++k) {
    for (int i = 0; i < kTile; ++i) {
      const float value = from[k * step + i];
      columns.value[k][i] = static_cast<double>(value);
      columns.exponent[k][i] = exponent_of(value, least_exponent(kind));
      columns.finite &= std::isfinite(value);
    }
  }
  return columns;
}

float toward_zero(double value) {
  const float nearest = static_cast<float>(value);
  const bool beyond = std::abs(static_cast<double>(nearest)) > std::abs(value);
  // A branch would be taken at every other product, at random.
  const auto less = static_cast<uint32_t>(beyond & !std::isinf(nearest));
  return std::bit_cast<float>(std::bit_cast<uint32_t>(nearest) - less);
}

struct Tile {
  const Rows& rows;
  const Columns& columns;
  int depth;
};

// meaning.h, multiply_of: a row of the tile, whose numbers are finite. A sum of whole numbers does
// not follow from the order; those of eight terms fit into a word.
[[gnu::always_inline]] inline void add_row(const Tile& tile, int row, Floats& c) {
  constexpr int kKeptBits = 25;
  const auto larger = [](const auto& a, const auto& b) __attribute__((always_inline)) {
    return a > b ? a : b;
  };
  Shorts largest;
  for (int i = 0; i < kTile; ++i) largest[i] = exponent_of(c[i], -126);
  for (int k = 0; k < tile.depth; ++k) {
    largest = larger(largest, tile.columns.exponent[k] + tile.rows.exponent[row][k]);
  }
  const Longs exponents = __builtin_convertvector(largest, Longs);
  const auto power_of_two = [](const Longs& exponent) __attribute__((always_inline)) {
    return reinterpret_cast<Doubles>((exponent + 1023) << 52);
  };
  const Doubles units = power_of_two(kKeptBits - exponents);
  const auto kept = [&units](const Doubles& terms)
      __attribute__((always_inline)) {  // a product is below 4 units of `largest`
    return reinterpret_cast<Bits>(__builtin_convertvector(terms * units, Words));
  };
  Bits sums[2] = {{}, kept(__builtin_convertvector(c, Doubles))};
  for (int k = 0; k < tile.depth; ++k) {
    sums[k / 8] += kept(tile.columns.value[k] * tile.rows.value[row][k]);
  }
  const Doubles sum = __builtin_convertvector(reinterpret_cast<Words>(sums[0]), Doubles) +
                      __builtin_convertvector(reinterpret_cast<Words>(sums[1]), Doubles);
  const Doubles value = sum * power_of_two(exponents - kKeptBits);
  for (int i = 0; i < kTile; ++i) c[i] = toward_zero(value[i]);
}

// The same of numbers of which some are not finite.
void add_row_exactly(const Tile& tile, int row, Floats& c) {
  Doubles plain = __builtin_convertvector(c, Doubles);
  for (int k = 0; k < tile.depth; ++k) plain += tile.columns.value[k] * tile.rows.value[row][k];
  add_row(tile, row, c);
  for (int i = 0; i < kTile; ++i) {
    if (!std::isfinite(plain[i])) c[i] = static_cast<float>(plain[i]);
  }
}

[[gnu::always_inline]] inline void add_rows(const Tile& tile, Floats (&c)[16]) {
  for (int row = 0; row < 16; ++row) add_row(tile, row, c[row]);
}
[[gnu::target("avx2")]] void add_rows_by_avx2(const Tile& tile, Floats (&c)[16]) {
  add_rows(tile, c);
}
void add_rows_by_any(const Tile& tile, Floats (&c)[16]) { add_rows(tile, c); }

// c += the tile. A third of these tests' time goes here.
void add_tile(const Tile& tile, Floats (&c)[16]) {
  static const bool by_avx2 = __builtin_cpu_supports("avx2") != 0;
  bool finite = tile.rows.finite && tile.columns.finite;
  for (const Floats& row : c) {
    for (int i = 0; i < kTile; ++i) finite &= std::isfinite(row[i]);
  }
  if (!finite) {
    for (int row = 0; row < 16; ++row) add_row_exactly(tile, row, c[row]);
  } else if (by_avx2) {
    add_rows_by_avx2(tile, c);
  } else {
    add_rows_by_any(tile, c);
  }
}

// Where a warp's lanes hold element (row, column) of a tile, the tile's number apart.
int lane_of(int row, int column) { return row % 8 * 4 + column / 2; }
int place_of(int row, int column) { return row / 8 * 2 + column % 2; }

template <Element kind>
void multiply_kind(const Lanes<float*>& d, const Lanes<const uint32_t*>& a,
                   const Lanes<const uint32_t*>& b) {
  constexpr int kDepth = kind == Element::kTf32 ? 8 : 16;
  Operands all;
  for (int lane = 0; lane < 32; ++lane) gather<kind>(lane, a[lane], b[lane], all);
  const Rows rows = rows_of(kind, kDepth, &all.a[0][0]);
  const Columns columns = columns_of(kind, kDepth, &all.b[0][0], kTile);
  Floats c[16];
  for (int row = 0; row < 16; ++row) {
    for (int i = 0; i < kTile; ++i) c[row][i] = d[lane_of(row, i)][place_of(row, i)];
  }
  add_tile({rows, columns, kDepth}, c);
  for (int row = 0; row < 16; ++row) {
    for (int i = 0; i < kTile; ++i) d[lane_of(row, i)][place_of(row, i)] = c[row][i];
  }
}

}  // namespace

void multiply_of(Element kind, const Lanes<float*>& d, const Lanes<const uint32_t*>& a,
                 const Lanes<const uint32_t*>& b) {
  switch (kind) {
    case Element::kBfloat16:
      return multiply_kind<Element::kBfloat16>(d, a, b);
    case Element::kFloat16:
      return multiply_kind<Element::kFloat16>(d, a, b);
    case Element::kTf32:
      return multiply_kind<Element::kTf32>(d, a, b);
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

// Elements of 16 bits that lie in one chunk, 8 of them, each `step` behind the last.
void widen_chunk(Element kind, const std::byte* chunk, float* to, int step) {
  uint16_t bits[8];
  std::memcpy(bits, chunk, sizeof(bits));
  for (int i = 0; i < 8; ++i) {
    to[i * step] = kind == Element::kBfloat16 ? widened<Element::kBfloat16>(bits[i], 0)
                                              : widened<Element::kFloat16>(bits[i], 0);
  }
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
    for (int k = 0; k < 16; k += 8) {
      widen_chunk(kind, shared + element_address(a, false, first_row + row, k), to + row * 16 + k,
                  1);
    }
  }
}

void gather_right(Element kind, const std::byte* shared, const MatrixView& b, bool by_columns,
                  int columns, float* to) {
  for (int k = 0; k < 16; k += by_columns ? 1 : 8) {
    for (int column = 0; column < columns; column += by_columns ? 8 : 1) {
      widen_chunk(kind, shared + element_address(b, by_columns, column, k),
                  to + k * columns + column, by_columns ? 1 : columns);
    }
  }
}

void group_multiply_of(Element kind, const float* a, const float* b, int columns, bool accumulate,
                       const Lanes<float*>& d) {
  const Rows rows = rows_of(kind, 16, a);
  for (int first = 0; first < columns; first += kTile) {
    const Columns own = columns_of(kind, 16, b + first, columns);
    const int beyond = first / kTile * 4;  // of a lane's elements, those of the tiles before
    Floats c[16] = {};
    for (int row = 0; row < 16 && accumulate; ++row) {
      for (int i = 0; i < kTile; ++i) c[row][i] = d[lane_of(row, i)][beyond + place_of(row, i)];
    }
    add_tile({rows, own, 16}, c);
    for (int row = 0; row < 16; ++row) {
      for (int i = 0; i < kTile; ++i) d[lane_of(row, i)][beyond + place_of(row, i)] = c[row][i];
    }
  }
}

}  // namespace weft::cuda_on_cpu
