// Functions of one tensor and their gradients, as kernels/cpu/vectors.h names them. Numerical
// policy: fp32, one rounding.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

__device__ float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }
__device__ float hard_sigmoid(float x) {
  return fminf(fmaxf(x * (1.0F / 6.0F) + 0.5F, 0.0F), 1.0F);
}

__device__ float value_of(Function f, float x) {
  switch (f.kind) {
    case cpu::Unary::kNegate:
      return -x;
    case cpu::Unary::kAbs:
      return fabsf(x);
    case cpu::Unary::kExp:
      return expf(x);
    case cpu::Unary::kLog:
      return logf(x);
    case cpu::Unary::kSqrt:
      return sqrtf(x);
    case cpu::Unary::kRsqrt:
      return 1.0F / sqrtf(x);
    case cpu::Unary::kSquare:
      return x * x;
    case cpu::Unary::kPower:
      return powf(x, f.a);
    case cpu::Unary::kClamp: {
      const float above = x < f.a ? f.a : x;  // NaN stays
      return above > f.b ? f.b : above;
    }
    case cpu::Unary::kSoftplus:
      return (x > 0.0F ? x : 0.0F) + log1pf(expf(-fabsf(x)));
    case cpu::Unary::kLeakyRelu:
      return x > 0.0F ? x : f.a * x;
    case cpu::Unary::kElu:
      return x > 0.0F ? x : f.a * expm1f(x);
    case cpu::Unary::kHardSigmoid:
      return hard_sigmoid(x);
    case cpu::Unary::kHardSwish:
      return x * hard_sigmoid(x);
    case cpu::Unary::kQuickGelu:
      return x * sigmoid(1.702F * x);
    case cpu::Unary::kEluPlusOne:
      break;
  }
  return x > 0.0F ? x + 1.0F : expf(x);
}

__device__ float slope_of(Function f, float x) {
  switch (f.kind) {
    case cpu::Unary::kNegate:
      return -1.0F;
    case cpu::Unary::kAbs:
      return x > 0.0F ? 1.0F : (x < 0.0F ? -1.0F : 0.0F);
    case cpu::Unary::kExp:
      return expf(x);
    case cpu::Unary::kLog:
      return 1.0F / x;
    case cpu::Unary::kSqrt:
      return 0.5F / sqrtf(x);
    case cpu::Unary::kRsqrt:
      return -0.5F / (x * sqrtf(x));
    case cpu::Unary::kSquare:
      return 2.0F * x;
    case cpu::Unary::kPower:
      return f.a == 0.0F ? 0.0F : f.a * powf(x, f.a - 1.0F);
    case cpu::Unary::kClamp:
      return x >= f.a && x <= f.b ? 1.0F : 0.0F;
    case cpu::Unary::kSoftplus:
      return sigmoid(x);
    case cpu::Unary::kLeakyRelu:
      return x > 0.0F ? 1.0F : f.a;
    case cpu::Unary::kElu:
      return x > 0.0F ? 1.0F : f.a * expf(x);
    case cpu::Unary::kHardSigmoid:
      return x > -3.0F && x < 3.0F ? 1.0F / 6.0F : 0.0F;
    case cpu::Unary::kHardSwish:
      return x > -3.0F && x < 3.0F ? x * (1.0F / 3.0F) + 0.5F : (x > 0.0F ? 1.0F : 0.0F);
    case cpu::Unary::kQuickGelu: {
      const float s = sigmoid(1.702F * x);
      return s + 1.702F * x * s * (1.0F - s);
    }
    case cpu::Unary::kEluPlusOne:
      break;
  }
  return x > 0.0F ? 1.0F : expf(x);
}

template <typename T>
__global__ void unary_kernel(Function f, const T* x, T* y, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    y[i] = narrow<T>(value_of(f, widen(x[i])));
  }
}

template <typename T>
__global__ void unary_backward_kernel(Function f, const T* x, const T* dy, T* dx, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    dx[i] = narrow<T>(widen(dy[i]) * slope_of(f, widen(x[i])));
  }
}

}  // namespace

template <typename T>
void unary(Function f, const T* x, T* y, int64_t n, cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, unary_kernel<T>, f, x, y, n);
}
template <typename T>
void unary_backward(Function f, const T* x, const T* dy, T* dx, int64_t n, cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, unary_backward_kernel<T>, f, x, dy, dx, n);
}

#define WEFT_INSTANTIATE(T)                                              \
  template void unary<T>(Function, const T*, T*, int64_t, cudaStream_t); \
  template void unary_backward<T>(Function, const T*, const T*, T*, int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
