// Sums and maxima over a warp and over a block of whole warps. The order of additions depends on
// the block's size only, so the same launch gives the same bits again.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"

namespace weft::cuda {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;

struct Add {
  template <typename T>
  __device__ static T combine(T a, T b) {
    return a + b;
  }
  __device__ static float neutral() { return 0.0F; }
};
struct Max {
  template <typename T>
  __device__ static T combine(T a, T b) {
    return a < b ? b : a;
  }
  __device__ static float neutral() { return -INFINITY; }
};

// The reduction over the warp, in every lane.
template <typename Operation, typename T>
__device__ T warp_reduce(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = Operation::combine(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// The reduction over the block, in every thread. `partials` is shared, kWarp of them; it may be
// used again at once. All threads of the block call it.
template <typename Operation, typename T>
__device__ T block_reduce(T value, T* partials) {
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / kWarp;
  value = warp_reduce<Operation>(value);
  if (thread % kWarp == 0) partials[thread / kWarp] = value;
  __syncthreads();
  const int lane = thread % kWarp;
  T total = lane < warps ? partials[lane] : static_cast<T>(Operation::neutral());
  __syncthreads();  // all have read: the next reduction may write
  return warp_reduce<Operation>(total);
}

}  // namespace weft::cuda
