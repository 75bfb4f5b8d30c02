#include "tests/testing/cuda_on_cpu/matrices.h"

#include <bit>
#include <cstring>

#include "kernels/tensor/half.h"

namespace weft::cuda_on_cpu {
namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;

struct Load {
  uint32_t* to;
  const void* row;
  bool transposed;
};

void load(void* const* parts, unsigned, const Where& where) {
  const bool transposed = static_cast<const Load*>(parts[0])->transposed;
  uint16_t matrix[4][8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* own = static_cast<const Load*>(parts[lane]);
    check_shared(own->row, 16, where);
    if (reinterpret_cast<uintptr_t>(own->row) % 16 != 0) {
      throw Fault(line_of(where) + ": a matrix row that is not aligned to 16 bytes");
    }
    if (own->transposed != transposed) throw Fault(line_of(where) + ": lanes disagree");
    std::memcpy(matrix[lane / 8][lane % 8], own->row, 16);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = transposed ? matrix[i][2 * t][g] : matrix[i][g][2 * t];
      const uint32_t high = transposed ? matrix[i][2 * t + 1][g] : matrix[i][g][2 * t + 1];
      static_cast<const Load*>(parts[lane])->to[i] = low | high << 16;
    }
  }
}

struct Product {
  Element kind;
  float* d;
  const uint32_t *a, *b;
};

void multiply(void* const* parts, unsigned, const Where&) {
  const Element kind = static_cast<const Product*>(parts[0])->kind;
  float a[16][16], b[16][8];
  const bool wide = kind == Element::kTf32;
  const int depth = wide ? 8 : 16;
  for (int lane = 0; lane < 32; ++lane) {
    const auto* own = static_cast<const Product*>(parts[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + i % 2 * 8;
      if (wide) {
        a[row][t + i / 2 * 4] = element_of(kind, own->a[i], 0);
        continue;
      }
      for (unsigned half = 0; half < 2; ++half) {
        a[row][2 * t + i / 2 * 8 + static_cast<int>(half)] = element_of(kind, own->a[i], half);
      }
    }
    for (int i = 0; i < 2; ++i) {
      if (wide) {
        b[t + i * 4][g] = element_of(kind, own->b[i], 0);
        continue;
      }
      for (unsigned half = 0; half < 2; ++half) {
        b[2 * t + i * 8 + static_cast<int>(half)][g] = element_of(kind, own->b[i], half);
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto* own = static_cast<const Product*>(parts[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
      double sum = 0;
      for (int k = 0; k < depth; ++k) {
        sum += static_cast<double>(a[row][k]) * static_cast<double>(b[k][column]);
      }
      own->d[i] = static_cast<float>(static_cast<double>(own->d[i]) + sum);
    }
  }
}

}  // namespace

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

void warp_load(uint32_t (&r)[4], const void* row, bool transposed, const Where& where) {
  Load part{r, row, transposed};
  meet_in_warp(kAllLanes, &part, load, where);
}

void warp_multiply(Element kind, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                   const Where& where) {
  Product part{kind, d, a, b};
  meet_in_warp(kAllLanes, &part, multiply, where);
}

}  // namespace weft::cuda_on_cpu
