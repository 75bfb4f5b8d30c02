// What a sum of squares that no order changes is made of (worker/optimizer/exact_squares.h).
// Numerical policy: the square of a float is exact in double, and so are all sums here, as long as
// they stay below a third of where the squares are cut.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

__global__ void largest_kernel(const float* x, int64_t n, float* partials) {
  float* warps = shared_memory<float>();
  float largest = 0.0F;
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    largest = Max::combine(largest, x[i] == x[i] ? fabsf(x[i]) : INFINITY);
  }
  largest = block_reduce<Max>(largest, warps);
  if (threadIdx.x == 0) partials[blockIdx.x] = largest;
}

// One block.
__global__ void merge_largest_kernel(const float* partials, int count, float* largest) {
  float* warps = shared_memory<float>();
  float most = *largest;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    most = Max::combine(most, partials[i]);
  }
  most = block_reduce<Max>(most, warps);
  if (threadIdx.x == 0) *largest = most;
}

// partials [2, gridDim.x]
__global__ void cut_kernel(const float* x, int64_t n, double first, double second,
                           double* partials) {
  double* warps = shared_memory<double>();
  double upper = 0.0, lower = 0.0;
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const double square = static_cast<double>(x[i]) * static_cast<double>(x[i]);
    const double high = (square + first) - first, rest = square - high;
    upper += high;
    lower += (rest + second) - second;
  }
  upper = block_reduce<Add>(upper, warps);
  lower = block_reduce<Add>(lower, warps);
  if (threadIdx.x != 0) return;
  partials[blockIdx.x] = upper;
  partials[gridDim.x + blockIdx.x] = lower;
}

// Block i adds the i-th `count` of partials to sums[i].
__global__ void merge_sums_kernel(const double* partials, int count, double* sums) {
  double* warps = shared_memory<double>();
  double total = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    total += partials[blockIdx.x * static_cast<unsigned>(count) + static_cast<unsigned>(i)];
  }
  total = block_reduce<Add>(total, warps);
  if (threadIdx.x == 0) sums[blockIdx.x] += total;
}

unsigned blocks_with_partials(int64_t n) {
  const unsigned blocks = blocks_of(n);
  return blocks < kPartials ? blocks : kPartials;
}

}  // namespace

void largest_size(const float* x, int64_t n, float* partials, float* largest, cudaStream_t stream) {
  const unsigned blocks = blocks_with_partials(n);
  constexpr size_t kBytes = kWarp * sizeof(float);
  launch_shared(stream, blocks, kThreads, kBytes, largest_kernel, x, n, partials);
  launch_shared(stream, 1, kThreads, kBytes, merge_largest_kernel, partials,
                static_cast<int>(blocks), largest);
}

void cut_squares(const float* x, int64_t n, double first, double second, double* partials,
                 double* sums, cudaStream_t stream) {
  const unsigned blocks = blocks_with_partials(n);
  constexpr size_t kBytes = kWarp * sizeof(double);
  launch_shared(stream, blocks, kThreads, kBytes, cut_kernel, x, n, first, second, partials);
  launch_shared(stream, 2, kThreads, kBytes, merge_sums_kernel, partials, static_cast<int>(blocks),
                sums);
}

}  // namespace weft::cuda
