// The part of the CUDA language that kernels/cuda uses, in C++ over the fibers of machine.h: a
// target that has this folder on its include path compiles .cu files without a toolkit.
//
// Beside the names: shuffles take whole warps (width 32), and __shared__ stands on variables of
// functions that are not templates (these use shared_memory() of kernels/cuda/ptx.cuh).
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/testing/cuda_on_cpu/warp.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static __attribute__((section("weft_shared")))

inline const weft::cuda_on_cpu::Extent& threadIdx = weft::cuda_on_cpu::position.thread;
inline const weft::cuda_on_cpu::Extent& blockIdx = weft::cuda_on_cpu::position.block;
inline const weft::cuda_on_cpu::Extent& blockDim = weft::cuda_on_cpu::position.block_size;
inline const weft::cuda_on_cpu::Extent& gridDim = weft::cuda_on_cpu::position.grid_size;

// ---- launches
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
// As if it had been asked for: dynamic shared memory is refused above the device's limit only.
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int bytes) {
  return bytes >= 0 && bytes <= 227 << 10 ? cudaSuccess : cudaErrorInvalidValue;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  namespace cpu = weft::cuda_on_cpu;
  const dim3 grid = config->gridDim, block = config->blockDim;
  const size_t shared_bytes = config->dynamicSmemBytes;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || grid.x == 0 || grid.x > 0x7FFFFFFF ||
      grid.y == 0 || grid.y > 65535 || grid.z == 0 || grid.z > 65535 || shared_bytes > 227 << 10) {
    return cudaErrorInvalidConfiguration;
  }
  // The arguments' values now, as the kernel's parameters.
  std::tuple<std::remove_const_t<Parameters>...> values(
      static_cast<std::remove_const_t<Parameters>>(arguments)...);
  cpu::enqueue(config->stream, [=] {
    cpu::run_grid({grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes,
                  [&] { std::apply(kernel, values); });
  });
  return cudaSuccess;
}

// ---- barriers, shuffles, votes
inline void __syncthreads(const std::source_location where = std::source_location::current()) {
  weft::cuda_on_cpu::barrier(false, where);
}
inline int __syncthreads_count(int vote,
                               const std::source_location where = std::source_location::current()) {
  return weft::cuda_on_cpu::barrier(vote != 0, where);
}
inline int __syncthreads_or(int vote,
                            const std::source_location where = std::source_location::current()) {
  return weft::cuda_on_cpu::barrier(vote != 0, where) != 0;
}
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
template <typename T>
unsigned __match_any_sync(unsigned mask, T value,
                          const std::source_location where = std::source_location::current()) {
  return weft::cuda_on_cpu::warp_match(mask, weft::cuda_on_cpu::bits_of(value), where);
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFU,
                       const std::source_location where = std::source_location::current()) {
  weft::cuda_on_cpu::warp_ballot(mask, true, where);
}

// ---- atomics: threads switch at meetings only, so these cannot be torn apart.
template <typename T>
T atomicAdd(T* address, T value) {
  return std::exchange(*address, *address + value);
}
template <typename T>
T atomicMax(T* address, T value) {
  return std::exchange(*address, *address < value ? value : *address);
}
template <typename T>
T atomicMin(T* address, T value) {
  return std::exchange(*address, value < *address ? value : *address);
}
template <typename T>
T atomicExch(T* address, T value) {
  return std::exchange(*address, value);
}
template <typename T>
T atomicCAS(T* address, T expected, T value) {
  return std::exchange(*address, *address == expected ? value : *address);
}
inline void __threadfence() {}

// ---- values
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
using std::isfinite;
using std::max;
using std::min;
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float rsqrtf(float x) { return 1.0F / std::sqrt(x); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
