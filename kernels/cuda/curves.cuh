// Activations and their slopes, fp32, after cpu::Curve.
#pragma once

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {

constexpr float kTwoRoot = 1.5957691216057308F;  // 2 sqrt(2/pi)
constexpr float kCube = 0.044715F;
constexpr float kRootHalf = 0.70710678118654752F, kDensity = 0.39894228040143268F;

// For results of a half type the hardware's approximations will do (fast_exponential): with the
// exact functions an activation takes longer than its bytes.
template <typename T>
__device__ float exponential_for(float x) {
  if constexpr (std::is_same_v<T, float>) return expf(x);
  return fast_exponential(x);
}
template <typename T>
__device__ float quotient_for(float a, float b) {
  if constexpr (std::is_same_v<T, float>) return a / b;
  return fast_quotient(a, b);
}

template <typename T>
__device__ float sigmoid_for(float x) {
  return quotient_for<T>(1.0F, 1.0F + exponential_for<T>(-x));
}
__device__ inline float sigmoid_of(float x) { return (sigmoid_for<float>)(x); }

// Beyond, GELU is 0 or x itself, by either form.
constexpr float kGeluFlat = 100.0F;

// T: what results are rounded to.
template <typename T, Curve kKind>
struct CurveFormula {
  // GELU by tanh (Hendrycks and Gimpel 2016): x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3),
  // which is x sigmoid(2u).
  __device__ static float gate(float x) {
    return sigmoid_for<T>(kTwoRoot * (x + kCube * x * x * x));
  }
  __device__ static float value(float x) {
    if constexpr (kKind == Curve::kGeluTanh || kKind == Curve::kGeluErf) {
      if (x < -kGeluFlat) x = -kGeluFlat;  // 0 times -infinity is NaN
    }
    if constexpr (kKind == Curve::kGeluTanh) return x * gate(x);
    if constexpr (kKind == Curve::kGeluErf) return 0.5F * x * (1.0F + erff(x * kRootHalf));
    if constexpr (kKind == Curve::kRelu) return x <= 0.0F ? 0.0F : x;  // NaN stays
    if constexpr (kKind == Curve::kSilu) return x * sigmoid_for<T>(x);
    if constexpr (kKind == Curve::kTanh) return tanhf(x);
    if constexpr (kKind == Curve::kSigmoid) return sigmoid_for<T>(x);
    return x;
  }
  __device__ static float slope(float x) {
    if constexpr (kKind == Curve::kGeluTanh || kKind == Curve::kGeluErf) {
      if (x < -kGeluFlat) x = -kGeluFlat;
      if (x > kGeluFlat) x = kGeluFlat;
    }
    if constexpr (kKind == Curve::kGeluTanh) {
      const float s = gate(x);
      return s + x * s * (1.0F - s) * kTwoRoot * (1.0F + 3.0F * kCube * x * x);
    } else if constexpr (kKind == Curve::kGeluErf) {
      return 0.5F * (1.0F + erff(x * kRootHalf)) + x * kDensity * exponential_for<T>(-0.5F * x * x);
    } else if constexpr (kKind == Curve::kRelu) {
      return x <= 0.0F ? 0.0F : 1.0F;
    } else if constexpr (kKind == Curve::kSilu) {
      const float s = sigmoid_for<T>(x);
      return s + x * s * (1.0F - s);
    } else if constexpr (kKind == Curve::kTanh) {
      const float t = tanhf(x);
      return 1.0F - t * t;
    } else if constexpr (kKind == Curve::kSigmoid) {
      const float s = sigmoid_for<T>(x);
      return s * (1.0F - s);
    } else {
      return 1.0F;
    }
  }
};

// Calls act with the formula: the choice is made once for all that act computes.
template <typename T, typename Act>
__device__ void with_curve(Curve kind, const Act& act) {
  switch (kind) {
    case Curve::kGeluTanh:
      return act(CurveFormula<T, Curve::kGeluTanh>());
    case Curve::kGeluErf:
      return act(CurveFormula<T, Curve::kGeluErf>());
    case Curve::kRelu:
      return act(CurveFormula<T, Curve::kRelu>());
    case Curve::kSilu:
      return act(CurveFormula<T, Curve::kSilu>());
    case Curve::kTanh:
      return act(CurveFormula<T, Curve::kTanh>());
    case Curve::kSigmoid:
      return act(CurveFormula<T, Curve::kSigmoid>());
    case Curve::kIdentity:
      break;
  }
  act(CurveFormula<T, Curve::kIdentity>());
}

}  // namespace weft::cuda
