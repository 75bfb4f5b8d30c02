// Activations and their slopes, fp32, after cpu::Curve.
#pragma once

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {

constexpr float kTwoRoot = 1.5957691216057308F;  // 2 sqrt(2/pi)
constexpr float kCube = 0.044715F;
constexpr float kRootHalf = 0.70710678118654752F, kDensity = 0.39894228040143268F;

__device__ inline float sigmoid_of(float x) { return 1.0F / (1.0F + expf(-x)); }
// GELU by tanh (Hendrycks and Gimpel 2016): x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3),
// which is x sigmoid(2u).
__device__ inline float gelu_gate(float x) {
  return sigmoid_of(kTwoRoot * (x + kCube * x * x * x));
}

__device__ inline float curve_of(Curve kind, float x) {
  switch (kind) {
    case Curve::kGeluTanh:
      return x * gelu_gate(x);
    case Curve::kGeluErf:
      return 0.5F * x * (1.0F + erff(x * kRootHalf));
    case Curve::kRelu:
      return x > 0.0F ? x : 0.0F;
    case Curve::kSilu:
      return x * sigmoid_of(x);
    case Curve::kTanh:
      return tanhf(x);
    case Curve::kSigmoid:
      return sigmoid_of(x);
    case Curve::kIdentity:
      break;
  }
  return x;
}

__device__ inline float slope_of(Curve kind, float x) {
  switch (kind) {
    case Curve::kGeluTanh: {
      const float s = gelu_gate(x);
      return s + x * s * (1.0F - s) * kTwoRoot * (1.0F + 3.0F * kCube * x * x);
    }
    case Curve::kGeluErf:
      return 0.5F * (1.0F + erff(x * kRootHalf)) + x * kDensity * expf(-0.5F * x * x);
    case Curve::kRelu:
      return x > 0.0F ? 1.0F : 0.0F;
    case Curve::kSilu: {
      const float s = sigmoid_of(x);
      return s + x * s * (1.0F - s);
    }
    case Curve::kTanh: {
      const float t = tanhf(x);
      return 1.0F - t * t;
    }
    case Curve::kSigmoid: {
      const float s = sigmoid_of(x);
      return s * (1.0F - s);
    }
    case Curve::kIdentity:
      break;
  }
  return 1.0F;
}

}  // namespace weft::cuda
