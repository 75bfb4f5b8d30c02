// The gradients of layer normalization: dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy gamma;
// dgamma = sum over rows of dy xhat, dbeta = sum of dy. Numerical policy: fp32. A column's sum runs
// over kTileRows interleaved chains of rows, merged in order: no atomics, the same bits each time.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

constexpr int kTileRows = 8;

__global__ void input_kernel(const float* x, const float* dy, const float* gamma, const float* mean,
                             const float* rstd, int64_t rows, int64_t width, float* dx) {
  __shared__ float partials[kWarp];
  const float n = static_cast<float>(width);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float m = mean[row], r = rstd[row];
    const int64_t start = row * width;
    float total = 0.0F, along = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const float g = dy[start + i] * gamma[i];
      total += g;
      along += g * (x[start + i] - m) * r;
    }
    const float mean_g = block_reduce<Add>(total, partials) / n;
    const float mean_along = block_reduce<Add>(along, partials) / n;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const float hat = (x[start + i] - m) * r;
      dx[start + i] = r * (dy[start + i] * gamma[i] - mean_g - hat * mean_along);
    }
  }
}

// A block sums kWarp columns: thread (x, y) takes column x of every row y + k kTileRows.
__global__ void parameter_kernel(const float* x, const float* dy, const float* mean,
                                 const float* rstd, int64_t rows, int64_t width, float* dgamma,
                                 float* dbeta) {
  __shared__ float gammas[kTileRows][kWarp];
  __shared__ float betas[kTileRows][kWarp];
  for (int64_t first = int64_t{kWarp} * blockIdx.x; first < width;
       first += int64_t{kWarp} * gridDim.x) {
    const int64_t column = first + threadIdx.x;
    float sum_gamma = 0.0F, sum_beta = 0.0F;
    for (int64_t row = threadIdx.y; row < rows && column < width; row += kTileRows) {
      const float d = dy[row * width + column];
      sum_gamma += d * (x[row * width + column] - mean[row]) * rstd[row];
      sum_beta += d;
    }
    gammas[threadIdx.y][threadIdx.x] = sum_gamma;
    betas[threadIdx.y][threadIdx.x] = sum_beta;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
      for (int y = 1; y < kTileRows; ++y) {
        sum_gamma += gammas[y][threadIdx.x];
        sum_beta += betas[y][threadIdx.x];
      }
      dgamma[column] = sum_gamma;
      dbeta[column] = sum_beta;
    }
    __syncthreads();  // all have read: the next columns may write
  }
}

}  // namespace

void layer_norm_backward(const float* x, const float* dy, const float* gamma, const float* mean,
                         const float* rstd, int64_t rows, int64_t width, float* dx, float* dgamma,
                         float* dbeta, cudaStream_t stream) {
  launch(stream, blocks_of(rows, 1), row_threads(width), input_kernel, x, dy, gamma, mean, rstd,
         rows, width, dx);
  launch(stream, blocks_of(width, kWarp), dim3(kWarp, kTileRows), parameter_kernel, x, dy, mean,
         rstd, rows, width, dgamma, dbeta);
}

}  // namespace weft::cuda
