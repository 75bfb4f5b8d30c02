// The one way by which kernels start. It is written in the toolkit's host API alone, so that the
// same sources also compile against tests/testing/cuda_on_cpu, which gives that API a meaning on a
// CPU.
//
// Thread safety: any thread, each with its own stream. Invariants: 1. nothing is launched for no
// elements: CUDA refuses an empty grid. 2. a block is whole warps.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "kernels/cuda/limits.h"

namespace weft::cuda {

constexpr int kWarp = 32;
constexpr int kThreads = 256;  // of a block of an elementwise kernel
constexpr size_t kSharedBytesUnasked = 48 << 10;

// Throws StatusError (unavailable), naming what was tried.
[[noreturn]] void throw_cuda_error(cudaError_t error, const char* what);
// WEFT_CHECK for the .cu files, which keep fmt away from nvcc.
void check_arguments(bool ok, const char* rule);

// Blocks for n elements, one a thread until kBlocksMax; 0 for none.
inline unsigned blocks_of(int64_t n, int64_t threads = kThreads) {
  const int64_t blocks = (n + threads - 1) / threads;
  return static_cast<unsigned>(blocks < kBlocksMax ? blocks : kBlocksMax);
}

// Threads of a block that works on one row of `width` at a time: 32 to 256, a power of two.
inline unsigned row_threads(int64_t width) {
  unsigned threads = kWarp;
  while (threads < kThreads && threads < width) threads *= 2;
  return threads;
}

// Runs kernel(args...) on the stream, in the order of the stream's other work, with shared_bytes of
// dynamic shared memory a block. A grid without blocks is no work. Throws StatusError if the launch
// is refused; what fails later shows up at the next call that waits for the stream.
template <typename... Parameters, typename... Arguments>
void launch_shared(cudaStream_t stream, dim3 grid, dim3 block, size_t shared_bytes,
                   void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared_bytes > kSharedBytesUnasked) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) throw_cuda_error(error, "a kernel's shared memory");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  const cudaError_t error =
      cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  if (error != cudaSuccess) throw_cuda_error(error, "a kernel launch");
}

// Blocks for a kernel of which a multiprocessor holds one, and which take items in turn.
inline unsigned blocks_at_once(int64_t items) {
  int device = 0, multiprocessors = 1;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) throw_cuda_error(error, "the number of multiprocessors");
  return static_cast<unsigned>(items < multiprocessors ? items : multiprocessors);
}

template <typename... Parameters, typename... Arguments>
void launch(cudaStream_t stream, dim3 grid, dim3 block, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  launch_shared(stream, grid, block, 0, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace weft::cuda
