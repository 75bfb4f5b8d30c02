#include "tests/testing/cuda_on_cpu/matrices.h"

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
  Lanes<const void*> rows;
  Lanes<uint32_t*> to;
  for (int lane = 0; lane < 32; ++lane) {
    const auto* own = static_cast<const Load*>(parts[lane]);
    check_shared(own->row, 16, where);
    if (reinterpret_cast<uintptr_t>(own->row) % 16 != 0) {
      throw Fault(line_of(where) + ": a matrix row that is not aligned to 16 bytes");
    }
    rows[lane] = own->row;
    to[lane] = own->to;
  }
  load_matrices_of(rows, transposed, to);
}

struct Product {
  Element kind;
  float* d;
  const uint32_t *a, *b;
};

void multiply(void* const* parts, unsigned, const Where&) {
  Lanes<float*> d;
  Lanes<const uint32_t*> a, b;
  for (int lane = 0; lane < 32; ++lane) {
    const auto* own = static_cast<const Product*>(parts[lane]);
    d[lane] = own->d;
    a[lane] = own->a;
    b[lane] = own->b;
  }
  multiply_of(static_cast<const Product*>(parts[0])->kind, d, a, b);
}

}  // namespace

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
