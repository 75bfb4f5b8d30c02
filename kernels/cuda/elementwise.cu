// Elementwise sums and products. Numerical policy: fp32, one rounding an operation; scale_bias may
// be contracted to one fused multiply-add.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

__global__ void add_kernel(const float* a, const float* b, float* out, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) out[i] = a[i] + b[i];
}

__global__ void multiply_kernel(const float* a, const float* b, float* out, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) out[i] = a[i] * b[i];
}

__global__ void scale_bias_kernel(const float* x, const float* bias, float factor, float* out,
                                  int64_t n, int64_t width) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    out[i] = factor * x[i] + (bias == nullptr ? 0.0F : bias[i % width]);
  }
}

}  // namespace

void add(const float* a, const float* b, float* out, int64_t n, cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, add_kernel, a, b, out, n);
}

void multiply(const float* a, const float* b, float* out, int64_t n, cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, multiply_kernel, a, b, out, n);
}

void scale_bias(const float* x, const float* bias, float factor, float* out, int64_t rows,
                int64_t width, cudaStream_t stream) {
  const int64_t n = rows * width;
  launch(stream, blocks_of(n), kThreads, scale_bias_kernel, x, bias, factor, out, n, width);
}

}  // namespace weft::cuda
