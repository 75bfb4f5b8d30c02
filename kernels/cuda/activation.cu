// Activations with an optional bias, SwiGLU (Shazeer 2020), and their gradients. Numerical policy:
// elements are widened to fp32, computed in fp32 and rounded once.
#include "kernels/cuda/curves.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

template <typename T>
__device__ float biased(const T* x, const T* bias, int64_t i, int64_t width) {
  return widen(x[i]) + (bias == nullptr ? 0.0F : widen(bias[i % width]));
}

template <typename T>
__global__ void curve_kernel(Curve kind, const T* x, const T* bias, T* y, int64_t n,
                             int64_t width) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    y[i] = narrow<T>(curve_of(kind, biased(x, bias, i, width)));
  }
}

template <typename T>
__global__ void curve_backward_kernel(Curve kind, const T* x, const T* bias, const T* dy, T* dx,
                                      int64_t n, int64_t width) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    dx[i] = narrow<T>(widen(dy[i]) * slope_of(kind, biased(x, bias, i, width)));
  }
}

template <typename T>
__global__ void swiglu_kernel(const T* gate, const T* up, T* y, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    y[i] = narrow<T>(curve_of(Curve::kSilu, widen(gate[i])) * widen(up[i]));
  }
}

template <typename T>
__global__ void swiglu_backward_kernel(const T* gate, const T* up, const T* dy, T* dgate, T* dup,
                                       int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const float g = widen(gate[i]), u = widen(up[i]), d = widen(dy[i]);
    dgate[i] = narrow<T>(d * u * slope_of(Curve::kSilu, g));
    dup[i] = narrow<T>(d * curve_of(Curve::kSilu, g));
  }
}

}  // namespace

template <typename T>
void curve(Curve kind, const T* x, Optional<T> bias, T* y, int64_t rows, int64_t width,
           cudaStream_t stream) {
  const int64_t n = rows * width;
  launch(stream, blocks_of(n), kThreads, curve_kernel<T>, kind, x, bias, y, n, width);
}
template <typename T>
void curve_backward(Curve kind, const T* x, Optional<T> bias, const T* dy, T* dx, int64_t rows,
                    int64_t width, cudaStream_t stream) {
  const int64_t n = rows * width;
  launch(stream, blocks_of(n), kThreads, curve_backward_kernel<T>, kind, x, bias, dy, dx, n, width);
}
template <typename T>
void swiglu(const T* gate, const T* up, T* y, int64_t n, cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, swiglu_kernel<T>, gate, up, y, n);
}
template <typename T>
void swiglu_backward(const T* gate, const T* up, const T* dy, T* dgate, T* dup, int64_t n,
                     cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, swiglu_backward_kernel<T>, gate, up, dy, dgate, dup, n);
}

#define WEFT_INSTANTIATE(T)                                                                     \
  template void curve<T>(Curve, const T*, Optional<T>, T*, int64_t, int64_t, cudaStream_t);     \
  template void curve_backward<T>(Curve, const T*, Optional<T>, const T*, T*, int64_t, int64_t, \
                                  cudaStream_t);                                                \
  template void swiglu<T>(const T*, const T*, T*, int64_t, cudaStream_t);                       \
  template void swiglu_backward<T>(const T*, const T*, const T*, T*, T*, int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
