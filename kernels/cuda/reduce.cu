// The sum and the sum of squares of an array. Numerical policy: a thread adds its elements in fp32,
// then everything in double; the form of the tree depends on n only, so the bits are the same each
// time.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

struct Plain {
  __device__ static float of(float x) { return x; }
};
struct Square {
  __device__ static float of(float x) { return x * x; }
};

template <typename Term>
__device__ double thread_sum(const float* x, int64_t n) {
  float total = 0.0F;
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) total += Term::of(x[i]);
  return static_cast<double>(total);
}

__global__ void sum_kernel(const float* x, int64_t n, double* partials) {
  __shared__ double warps[kWarp];
  const double total = block_reduce<Add>(thread_sum<Plain>(x, n), warps);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

__global__ void squares_kernel(const float* x, int64_t n, double* partials) {
  __shared__ double warps[kWarp];
  const double total = block_reduce<Add>(thread_sum<Square>(x, n), warps);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// One block.
__global__ void merge_kernel(const double* partials, int count, double* out) {
  __shared__ double warps[kWarp];
  double total = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) total += partials[i];
  total = block_reduce<Add>(total, warps);
  if (threadIdx.x == 0) *out = total;
}

void reduce(void (*kernel)(const float*, int64_t, double*), const float* x, int64_t n,
            double* partials, double* out, cudaStream_t stream) {
  unsigned blocks = blocks_of(n);
  if (blocks > kPartials) blocks = kPartials;
  launch(stream, blocks, kThreads, kernel, x, n, partials);
  launch(stream, 1, kThreads, merge_kernel, partials, static_cast<int>(blocks), out);
}

}  // namespace

void sum(const float* x, int64_t n, double* partials, double* out, cudaStream_t stream) {
  reduce(sum_kernel, x, n, partials, out, stream);
}

void sum_of_squares(const float* x, int64_t n, double* partials, double* out, cudaStream_t stream) {
  reduce(squares_kernel, x, n, partials, out, stream);
}

}  // namespace weft::cuda
