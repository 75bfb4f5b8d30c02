// Functions of one tensor and their gradients, as kernels/cpu/vectors.h names them. Numerical
// policy: fp32, one rounding.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/map.cuh"

namespace weft::cuda {
namespace {

__device__ float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }
__device__ float hard_sigmoid(float x) {
  const float sixth = x * (1.0F / 6.0F) + 0.5F, low = sixth < 0.0F ? 0.0F : sixth;  // NaN stays
  return low > 1.0F ? 1.0F : low;
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
      if (x >= 3.0F) return 1.0F;
      return x <= -3.0F ? 0.0F : x * (1.0F / 3.0F) + 0.5F;  // NaN stays
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
struct ValueOf {
  Function f;
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& y, const Vector<T, kWidth>& x) const {
    (each)([&](T a) { return narrow<T>(value_of(f, widen(a))); }, y, x);
  }
};

template <typename T>
struct GradientOf {
  Function f;
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& dx, const Vector<T, kWidth>& x,
                             const Vector<T, kWidth>& dy) const {
    (each)([&](T a, T d) { return narrow<T>(widen(d) * slope_of(f, widen(a))); }, dx, x, dy);
  }
};

}  // namespace

template <typename T>
void unary(Function f, const T* x, T* y, int64_t n, cudaStream_t stream) {
  (map_flat)(stream, ValueOf<T>{f}, n, y, x);
}
template <typename T>
void unary_backward(Function f, const T* x, const T* dy, T* dx, int64_t n, cudaStream_t stream) {
  (map_flat)(stream, GradientOf<T>{f}, n, dx, x, dy);
}

#define WEFT_INSTANTIATE(T)                                              \
  template void unary<T>(Function, const T*, T*, int64_t, cudaStream_t); \
  template void unary_backward<T>(Function, const T*, const T*, T*, int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
