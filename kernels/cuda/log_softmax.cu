// The logarithm of softmax over rows and its gradient, a block a row. Numerical policy: fp32,
// shifted by the row's maximum; sums in the block's tree; one rounding at the end.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void log_softmax_kernel(const T* x, T* y, int64_t rows, int64_t width) {
  float* partials = shared_memory<float>();
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* from = x + row * width;
    float largest = -INFINITY, total = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      largest = Max::combine(largest, widen(from[i]));
    }
    largest = block_reduce<Max>(largest, partials);
    const bool none = largest == -INFINITY;  // nothing to choose from
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      total += none ? 0.0F : expf(widen(from[i]) - largest);
    }
    const float log_total = logf(block_reduce<Add>(total, partials));
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      y[row * width + i] = narrow<T>(none ? 0.0F : (widen(from[i]) - largest) - log_total);
    }
  }
}

// dx = dy - exp(y) sum(dy).
template <typename T>
__global__ void log_softmax_backward_kernel(const T* y, const T* dy, T* dx, int64_t rows,
                                            int64_t width) {
  float* partials = shared_memory<float>();
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t start = row * width;
    float total = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) total += widen(dy[start + i]);
    total = block_reduce<Add>(total, partials);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      dx[start + i] = narrow<T>(widen(dy[start + i]) - expf(widen(y[start + i])) * total);
    }
  }
}

}  // namespace

template <typename T>
void log_softmax(const T* x, T* y, int64_t rows, int64_t width, cudaStream_t stream) {
  launch_shared(stream, blocks_of(rows, 1), row_threads(width), kWarp * sizeof(float),
                log_softmax_kernel<T>, x, y, rows, width);
}
template <typename T>
void log_softmax_backward(const T* y, const T* dy, T* dx, int64_t rows, int64_t width,
                          cudaStream_t stream) {
  launch_shared(stream, blocks_of(rows, 1), row_threads(width), kWarp * sizeof(float),
                log_softmax_backward_kernel<T>, y, dy, dx, rows, width);
}

#define WEFT_INSTANTIATE(T)                                                   \
  template void log_softmax<T>(const T*, T*, int64_t, int64_t, cudaStream_t); \
  template void log_softmax_backward<T>(const T*, const T*, T*, int64_t, int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
