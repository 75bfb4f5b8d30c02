// Layer normalization (Ba et al. 2016), a block a row. Numerical policy: fp32; the mean first, then
// the squares of the distances from it (two passes, no cancellation); sums in the block's tree.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

__global__ void layer_norm_kernel(const float* x, const float* gamma, const float* beta,
                                  float epsilon, int64_t rows, int64_t width, float* y, float* mean,
                                  float* rstd) {
  __shared__ float partials[kWarp];
  const float n = static_cast<float>(width);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float* from = x + row * width;
    float total = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) total += from[i];
    const float m = block_reduce<Add>(total, partials) / n;
    float squares = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      squares += (from[i] - m) * (from[i] - m);
    }
    const float r = 1.0F / sqrtf(block_reduce<Add>(squares, partials) / n + epsilon);
    float* to = y + row * width;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      to[i] = (from[i] - m) * r * gamma[i] + beta[i];
    }
    if (threadIdx.x == 0) {
      mean[row] = m;
      rstd[row] = r;
    }
  }
}

}  // namespace

void layer_norm(const float* x, const float* gamma, const float* beta, float epsilon, int64_t rows,
                int64_t width, float* y, float* mean, float* rstd, cudaStream_t stream) {
  launch(stream, blocks_of(rows, 1), row_threads(width), layer_norm_kernel, x, gamma, beta, epsilon,
         rows, width, y, mean, rstd);
}

}  // namespace weft::cuda
