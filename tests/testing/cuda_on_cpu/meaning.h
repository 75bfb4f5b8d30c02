// What the matrix instructions and narrow conversions compute, as plain functions over the 32 lanes
// of a warp; kernels/cuda/ptx.cuh says which lane holds what. The harness gives kernels this
// meaning, and the self-test holds a GPU against it.
//
// Thread safety: no state.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::cuda_on_cpu {

enum class Element { kBfloat16, kFloat16, kTf32 };
float element_of(Element kind, uint32_t word, unsigned half);  // half 0 or 1; 0 of kTf32
uint32_t round_to_tf32(float value);

template <typename T>
using Lanes = T[32];

// ldmatrix: lane l hands in row l % 8 of matrix l / 8, 16 bytes.
void load_matrices_of(const Lanes<const void*>& rows, bool transposed, const Lanes<uint32_t*>& r);
// ---- matrices in shared memory as wgmma is told of them (PTX ISA, "Matrix Descriptor Format" and
// "Asynchronous Warpgroup Level Matrix Shared Memory Layout"), with 128-byte swizzling
struct MatrixView {
  uint32_t address = 0;  // of shared memory
  uint32_t leading_bytes = 0, stride_bytes = 0;
  unsigned swizzle = 0;  // 1: 128 bytes
};
MatrixView matrix_view(uint64_t descriptor);
// Chunks of 16 bytes change places by bits 7 to 9 of their address.
constexpr uint32_t swizzled_128(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }
// The address of element (line, k): line is a row of a left or a column of a right matrix. Each
// eight lines (by k: each eight k's) lie stride_bytes from the last; a panel of 64 lines, where
// they are what lies next to each other, leading_bytes from the last.
uint32_t element_address(const MatrixView& view, bool by_lines, int line, int k);

// wgmma of one warp: d [16, columns], lane by lane as of multiply_of, tile after tile. a [16][16],
// b [16][columns], both row-major.
void group_multiply_of(Element kind, const float* a, const float* b, int columns, bool accumulate,
                       const Lanes<float*>& d);
// The operands, gathered: `shared` is where address 0 lies.
void gather_left(Element kind, const Lanes<const uint32_t*>& a, float* to);
void gather_left(Element kind, const std::byte* shared, const MatrixView& a, int first_row,
                 float* to);
void gather_right(Element kind, const std::byte* shared, const MatrixView& b, bool by_columns,
                  int columns, float* to);

// mma.sync: d += a b as tensor cores of compute capability 9.0 sum up (Khattak and Mikaitis 2025,
// "Accurate models of NVIDIA tensor cores", arXiv:2512.07004; Xie et al. 2025, "MMA-Sim"; before
// them Fasi, Higham, Mikaitis and Pranesh 2021): with E the largest exponent among those of d and,
// as sums of two, of the products, each exact product and d are cut off toward zero below 2^(E -
// 25); their exact sum is cut off toward zero to a float. So a sum that goes through many products
// comes out too small. (8.0 keeps 24 bits and takes k in two halves.)
void multiply_of(Element kind, const Lanes<float*>& d, const Lanes<const uint32_t*>& a,
                 const Lanes<const uint32_t*>& b);

}  // namespace weft::cuda_on_cpu
