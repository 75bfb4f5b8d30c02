// Softmax over rows and its gradient, a block a row. Numerical policy: fp32, shifted by the row's
// maximum, so that no exponential overflows; sums in the block's tree; one rounding at the end.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void softmax_kernel(const T* x, T* y, int64_t rows, int64_t width) {
  float* partials = shared_memory<float>();
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* from = x + row * width;
    T* to = y + row * width;
    float largest = -INFINITY;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      largest = Max::combine(largest, widen(from[i]));
    }
    largest = block_reduce<Max>(largest, partials);
    const bool none = largest == -INFINITY;  // nothing to choose from
    float total = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      total += none ? 0.0F : expf(widen(from[i]) - largest);
    }
    total = block_reduce<Add>(total, partials);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      to[i] = narrow<T>(none ? 0.0F : expf(widen(from[i]) - largest) / total);
    }
  }
}

// dx = y (dy - sum(y dy)).
template <typename T>
__global__ void backward_kernel(const T* y, const T* dy, T* dx, int64_t rows, int64_t width) {
  float* partials = shared_memory<float>();
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t start = row * width;
    float along = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      along += widen(y[start + i]) * widen(dy[start + i]);
    }
    along = block_reduce<Add>(along, partials);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      dx[start + i] = narrow<T>(widen(y[start + i]) * (widen(dy[start + i]) - along));
    }
  }
}

}  // namespace

template <typename T>
void softmax(const T* x, T* y, int64_t rows, int64_t width, cudaStream_t stream) {
  launch_shared(stream, blocks_of(rows, 1), row_threads(width), kWarp * sizeof(float),
                softmax_kernel<T>, x, y, rows, width);
}
template <typename T>
void softmax_backward(const T* y, const T* dy, T* dx, int64_t rows, int64_t width,
                      cudaStream_t stream) {
  launch_shared(stream, blocks_of(rows, 1), row_threads(width), kWarp * sizeof(float),
                backward_kernel<T>, y, dy, dx, rows, width);
}

#define WEFT_INSTANTIATE(T)                                               \
  template void softmax<T>(const T*, T*, int64_t, int64_t, cudaStream_t); \
  template void softmax_backward<T>(const T*, const T*, T*, int64_t, int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
