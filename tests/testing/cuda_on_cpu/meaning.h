// What the matrix instructions and narrow conversions compute, as plain functions over the 32 lanes
// of a warp; kernels/cuda/ptx.cuh says which lane holds what. The harness gives kernels this
// meaning, and the self-test holds a GPU against it.
//
// Thread safety: no state.
#pragma once

#include <cstdint>

namespace weft::cuda_on_cpu {

enum class Element { kBfloat16, kFloat16, kTf32 };
float element_of(Element kind, uint32_t word, unsigned half);  // half 0 or 1; 0 of kTf32
uint32_t round_to_tf32(float value);

template <typename T>
using Lanes = T[32];

// ldmatrix: lane l hands in row l % 8 of matrix l / 8, 16 bytes.
void load_matrices_of(const Lanes<const void*>& rows, bool transposed, const Lanes<uint32_t*>& r);
// mma.sync: d += a b, exact products summed in double, then one rounding; the hardware's own order
// and rounding of sums are not told.
void multiply_of(Element kind, const Lanes<float*>& d, const Lanes<const uint32_t*>& a,
                 const Lanes<const uint32_t*>& b);

}  // namespace weft::cuda_on_cpu
