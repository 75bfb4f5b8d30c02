// What elements are ordered by: floating ones as floats, NaN as the largest; integers as they are.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {

__device__ inline int64_t ordered_as(int64_t value) { return value; }
template <typename T>
__device__ float ordered_as(T value) {
  return widen(value);
}

// Whether p comes before q; neither does where they are equal.
template <typename T>
__device__ bool comes_before(bool descending, T p, T q) {
  const auto first = ordered_as(descending ? q : p), second = ordered_as(descending ? p : q);
  if (first != first) return false;
  return second != second || first < second;
}

}  // namespace weft::cuda
