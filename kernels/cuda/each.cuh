// A loop over all elements that the threads of a grid share: a thread takes every so-manieth.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/walk.h"

namespace weft::cuda {

__device__ inline int64_t first_element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline int64_t elements_of_grid() {
  return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

// Where element `index` (row-major) of a walk lies in each array.
template <int kArrays>
struct Offsets {
  int64_t at[kArrays];
};
template <int kArrays>
__device__ Offsets<kArrays> offsets_of(const Walk<kArrays>& walk, int64_t index) {
  Offsets<kArrays> offsets{};
  for (int dim = 0; dim < walk.dims; ++dim) {
    const int64_t place = dim + 1 < walk.dims ? index % walk.extent[dim] : index;
    for (int array = 0; array < kArrays; ++array) {
      offsets.at[array] += place * walk.stride[array][dim];
    }
    index /= walk.extent[dim];
  }
  return offsets;
}

}  // namespace weft::cuda
