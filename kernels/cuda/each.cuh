// A loop over all elements that the threads of a grid share: a thread takes every so-manieth.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace weft::cuda {

__device__ inline int64_t first_element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline int64_t elements_of_grid() {
  return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

}  // namespace weft::cuda
