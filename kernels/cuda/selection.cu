// Comparisons, the smaller or larger of two, and choices by a mask, with broadcasting. Numerical
// policy: exact; of a NaN and anything the extreme is NaN.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

// What elements are compared as.
__device__ inline int64_t comparable(int64_t value) { return value; }
__device__ inline int32_t comparable(int32_t value) { return value; }
__device__ inline int32_t comparable(uint8_t value) { return value; }
template <typename T>
__device__ float comparable(T value) {
  return widen(value);
}

template <typename V>
__device__ bool holds(cpu::Compare kind, V a, V b) {
  switch (kind) {
    case cpu::Compare::kEqual:
      return a == b;
    case cpu::Compare::kNotEqual:
      return a != b;
    case cpu::Compare::kLess:
      return a < b;
    case cpu::Compare::kLessEqual:
      return a <= b;
    case cpu::Compare::kGreater:
      return a > b;
    case cpu::Compare::kGreaterEqual:
      break;
  }
  return a >= b;
}

template <typename T>
__global__ void compare_kernel(cpu::Compare kind, const __grid_constant__ Walk<3> walk, const T* a,
                               const T* b, uint8_t* out) {
  for (int64_t i = first_element(); i < walk.elements; i += elements_of_grid()) {
    const Offsets<3> at = offsets_of(walk, i);
    const bool yes = holds(kind, comparable(a[at.at[0]]), comparable(b[at.at[1]]));
    out[at.at[2]] = yes ? 1 : 0;
  }
}

template <typename T>
__global__ void extreme_kernel(bool larger, const __grid_constant__ Walk<3> walk, const T* a,
                               const T* b, T* out) {
  for (int64_t i = first_element(); i < walk.elements; i += elements_of_grid()) {
    const Offsets<3> at = offsets_of(walk, i);
    const float x = widen(a[at.at[0]]), y = widen(b[at.at[1]]);
    const bool first = x != x || (y == y && (larger ? x > y : x < y));
    out[at.at[2]] = first ? a[at.at[0]] : b[at.at[1]];
  }
}

template <typename T>
__global__ void choose_kernel(const __grid_constant__ Walk<4> walk, const uint8_t* mask, const T* a,
                              const T* b, T* out) {
  for (int64_t i = first_element(); i < walk.elements; i += elements_of_grid()) {
    const Offsets<4> at = offsets_of(walk, i);
    out[at.at[3]] = mask[at.at[0]] != 0 ? a[at.at[1]] : b[at.at[2]];
  }
}

}  // namespace

template <typename T>
void compare(cpu::Compare kind, const Walk<3>& walk, const T* a, const T* b, uint8_t* out,
             cudaStream_t stream) {
  launch(stream, blocks_of(walk.elements), kThreads, compare_kernel<T>, kind, walk, a, b, out);
}
template <typename T>
void extreme(bool larger, const Walk<3>& walk, const T* a, const T* b, T* out,
             cudaStream_t stream) {
  launch(stream, blocks_of(walk.elements), kThreads, extreme_kernel<T>, larger, walk, a, b, out);
}
template <typename T>
void choose(const Walk<4>& walk, const uint8_t* mask, const T* a, const T* b, T* out,
            cudaStream_t stream) {
  launch(stream, blocks_of(walk.elements), kThreads, choose_kernel<T>, walk, mask, a, b, out);
}

#define WEFT_INSTANTIATE(T)                                                             \
  template void extreme<T>(bool, const Walk<3>&, const T*, const T*, T*, cudaStream_t); \
  template void choose<T>(const Walk<4>&, const uint8_t*, const T*, const T*, T*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE
#define WEFT_INSTANTIATE(T)                                                            \
  template void compare<T>(cpu::Compare, const Walk<3>&, const T*, const T*, uint8_t*, \
                           cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
WEFT_INSTANTIATE(int64_t)
WEFT_INSTANTIATE(int32_t)
WEFT_INSTANTIATE(uint8_t)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
