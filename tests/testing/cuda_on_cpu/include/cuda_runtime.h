// The part of the CUDA language and runtime that kernels/cuda uses, in C++ over the fibers of
// machine.h: a target that has this folder on its include path compiles .cu files without a
// toolkit. Launches run at once, so a stream is always idle.
//
// Beside the names: shuffles take whole warps (width 32), and __shared__ stands on variables of
// functions that are not templates.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>
#include <utility>

#include "tests/testing/cuda_on_cpu/machine.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static __attribute__((section("weft_shared")))

struct dim3 {
  constexpr dim3(unsigned x_extent = 1, unsigned y_extent = 1, unsigned z_extent = 1)
      : x(x_extent), y(y_extent), z(z_extent) {}
  unsigned x, y, z;
};
inline const weft::cuda_on_cpu::Extent& threadIdx = weft::cuda_on_cpu::position.thread;
inline const weft::cuda_on_cpu::Extent& blockIdx = weft::cuda_on_cpu::position.block;
inline const weft::cuda_on_cpu::Extent& blockDim = weft::cuda_on_cpu::position.block_size;
inline const weft::cuda_on_cpu::Extent& gridDim = weft::cuda_on_cpu::position.grid_size;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}

struct CUstream_st;
using cudaStream_t = CUstream_st*;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || grid.x == 0 || grid.x > 0x7FFFFFFF ||
      grid.y == 0 || grid.y > 65535 || grid.z == 0 || grid.z > 65535 ||
      config->dynamicSmemBytes != 0) {
    return cudaErrorInvalidConfiguration;
  }
  weft::cuda_on_cpu::run_grid({grid.x, grid.y, grid.z}, {block.x, block.y, block.z},
                              [&] { kernel(static_cast<Parameters>(arguments)...); });
  return cudaSuccess;
}

inline void __syncthreads(const std::source_location where = std::source_location::current()) {
  weft::cuda_on_cpu::barrier(where);
}

namespace weft::cuda_on_cpu {

template <typename T>
T shuffle(unsigned mask, T value, int source, const std::source_location& where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = warp_exchange(mask, bits, source, where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace weft::cuda_on_cpu

template <typename T>
T __shfl_sync(unsigned mask, T value, int source,
              const std::source_location where = std::source_location::current()) {
  return weft::cuda_on_cpu::shuffle(mask, value, source & 31, where);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int distance,
                  const std::source_location where = std::source_location::current()) {
  return weft::cuda_on_cpu::shuffle(mask, value, (weft::cuda_on_cpu::lane() ^ distance) & 31,
                                    where);
}
// Lanes past the end keep their own value.
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance,
                   const std::source_location where = std::source_location::current()) {
  const int own = weft::cuda_on_cpu::lane(), source = own + static_cast<int>(distance);
  return weft::cuda_on_cpu::shuffle(mask, value, source > 31 ? own : source, where);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance,
                 const std::source_location where = std::source_location::current()) {
  const int own = weft::cuda_on_cpu::lane(), source = own - static_cast<int>(distance);
  return weft::cuda_on_cpu::shuffle(mask, value, source < 0 ? own : source, where);
}
inline unsigned __ballot_sync(unsigned mask, int vote,
                              const std::source_location where = std::source_location::current()) {
  return weft::cuda_on_cpu::warp_ballot(mask, vote != 0, where);
}
inline int __any_sync(unsigned mask, int vote,
                      const std::source_location where = std::source_location::current()) {
  return weft::cuda_on_cpu::warp_ballot(mask, vote != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int vote,
                      const std::source_location where = std::source_location::current()) {
  return weft::cuda_on_cpu::warp_ballot(mask, vote != 0, where) == mask;
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFU,
                       const std::source_location where = std::source_location::current()) {
  weft::cuda_on_cpu::warp_ballot(mask, true, where);
}

// Threads switch at meetings only, so these cannot be torn apart.
template <typename T>
T atomicAdd(T* address, T value) {
  return std::exchange(*address, *address + value);
}
