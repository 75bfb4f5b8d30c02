// The gradients of layer and RMS normalization: dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy
// gamma (RMS: without mean(g)), plus what flows past the norm; dgamma = sum over rows of dy xhat,
// dbeta = sum of dy. Numerical policy: fp32. A column's sum runs over slices of rows, kTileRows
// chains each, merged in order: no atomics, the same bits each time.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/slices.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void input_kernel(NormBackwardArguments<T> n) {
  float* partials = shared_memory<float>();
  const float width = static_cast<float>(n.width);
  for (int64_t row = blockIdx.x; row < n.rows; row += gridDim.x) {
    const float m = n.mean == nullptr ? 0.0F : n.mean[row], r = n.rstd[row];
    const int64_t start = row * n.width;
    float total = 0.0F, along = 0.0F;
    for (int64_t i = threadIdx.x; i < n.width; i += blockDim.x) {
      const float g = widen(n.dy[start + i]) * widen(n.gamma[i]);
      total += g;
      along += g * (widen(n.x[start + i]) - m) * r;
    }
    const float mean_g = n.mean == nullptr ? 0.0F : block_reduce<Add>(total, partials) / width;
    const float mean_along = block_reduce<Add>(along, partials) / width;
    for (int64_t i = threadIdx.x; i < n.width; i += blockDim.x) {
      const float hat = (widen(n.x[start + i]) - m) * r;
      const float past = n.dsum == nullptr ? 0.0F : widen(n.dsum[start + i]);
      const float g = widen(n.dy[start + i]) * widen(n.gamma[i]);
      n.dx[start + i] = narrow<T>(past + r * (g - mean_g - hat * mean_along));
    }
  }
}

// A block sums kWarp columns of a slice: thread (x, y) takes column x of every row y + k kTileRows.
// gammas, betas [slices, width].
template <typename T>
__global__ void parameter_kernel(NormBackwardArguments<T> n, int64_t tiles, int64_t items,
                                 float* gammas, float* betas) {
  float *of_gamma = shared_memory<float>(), *of_beta = of_gamma + kTileRows * kWarp;
  const int own = static_cast<int>(threadIdx.y * kWarp + threadIdx.x);
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t column = item % tiles * kWarp + threadIdx.x, slice = item / tiles;
    const int64_t first = slice * kSliceRows, last = min(first + kSliceRows, n.rows);
    float sum_gamma = 0.0F, sum_beta = 0.0F;
    for (int64_t row = first + threadIdx.y; row < last && column < n.width; row += kTileRows) {
      const float d = widen(n.dy[row * n.width + column]);
      const float m = n.mean == nullptr ? 0.0F : n.mean[row];
      sum_gamma += d * (widen(n.x[row * n.width + column]) - m) * n.rstd[row];
      sum_beta += d;
    }
    of_gamma[own] = sum_gamma;
    of_beta[own] = sum_beta;
    __syncthreads();
    if (threadIdx.y == 0 && column < n.width) {
      for (int y = 1; y < kTileRows; ++y) {
        sum_gamma += of_gamma[y * kWarp + own];
        sum_beta += of_beta[y * kWarp + own];
      }
      gammas[slice * n.width + column] = sum_gamma;
      betas[slice * n.width + column] = sum_beta;
    }
    __syncthreads();  // all have read: the next columns may write
  }
}

}  // namespace

int64_t norm_backward_scratch(int64_t rows, int64_t width) {
  return 2 * slices_of(rows, 0) * width;
}

template <typename T>
void norm_backward(const NormBackwardArguments<T>& n, float* scratch, cudaStream_t stream) {
  launch_shared(stream, blocks_of(n.rows, 1), row_threads(n.width), kWarp * sizeof(float),
                input_kernel<T>, n);
  const int64_t slices = slices_of(n.rows, 0), tiles = (n.width + kWarp - 1) / kWarp;
  float *gammas = scratch, *betas = scratch + slices * n.width;
  launch_shared(stream, blocks_of(slices * tiles, 1), dim3(kWarp, kTileRows),
                2 * kTileRows * kWarp * sizeof(float), parameter_kernel<T>, n, tiles,
                slices * tiles, gammas, betas);
  merge_slices(gammas, slices, n.width, n.dgamma, stream);
  if (n.dbeta != nullptr) merge_slices(betas, slices, n.width, n.dbeta, stream);
}

#define WEFT_INSTANTIATE(T) \
  template void norm_backward<T>(const NormBackwardArguments<T>&, float*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
