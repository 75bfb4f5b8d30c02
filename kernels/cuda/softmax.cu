// Softmax over rows and its gradient, a block a row. Numerical policy: fp32, shifted by the row's
// maximum, so that no exponential overflows; sums in the block's tree.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

__global__ void softmax_kernel(const float* x, float* y, int64_t rows, int64_t width) {
  __shared__ float partials[kWarp];
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float* from = x + row * width;
    float* to = y + row * width;
    float largest = -INFINITY;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      largest = Max::combine(largest, from[i]);
    }
    largest = block_reduce<Max>(largest, partials);
    const bool none = largest == -INFINITY;  // nothing to choose from
    float total = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      total += none ? 0.0F : expf(from[i] - largest);
    }
    total = block_reduce<Add>(total, partials);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      to[i] = none ? 0.0F : expf(from[i] - largest) / total;
    }
  }
}

// dx = y (dy - sum(y dy)).
__global__ void backward_kernel(const float* y, const float* dy, float* dx, int64_t rows,
                                int64_t width) {
  __shared__ float partials[kWarp];
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t start = row * width;
    float along = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) along += y[start + i] * dy[start + i];
    along = block_reduce<Add>(along, partials);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      dx[start + i] = y[start + i] * (dy[start + i] - along);
    }
  }
}

}  // namespace

void softmax(const float* x, float* y, int64_t rows, int64_t width, cudaStream_t stream) {
  launch(stream, blocks_of(rows, 1), row_threads(width), softmax_kernel, x, y, rows, width);
}

void softmax_backward(const float* y, const float* dy, float* dx, int64_t rows, int64_t width,
                      cudaStream_t stream) {
  launch(stream, blocks_of(rows, 1), row_threads(width), backward_kernel, y, dy, dx, rows, width);
}

}  // namespace weft::cuda
