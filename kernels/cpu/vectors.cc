#include "kernels/cpu/vectors.h"

#include "kernels/cpu/level.h"
#include "kernels/cpu/vectors_levels.h"

namespace weft::cpu {

template <>
const VectorKernels<float>& vectors<float>() {
  if (level() >= Level::kV4) return vectors_f32_v4;
  return level() == Level::kV3 ? vectors_f32_v3 : vectors_f32_v2;
}

template <>
const VectorKernels<double>& vectors<double>() {
  if (level() >= Level::kV4) return vectors_f64_v4;
  return level() == Level::kV3 ? vectors_f64_v3 : vectors_f64_v2;
}

template <>
const VectorKernels<bfloat16>& vectors<bfloat16>() {
  if (level() >= Level::kBf16) return vectors_bf16_avx512bf16;
  if (level() == Level::kV4) return vectors_bf16_v4;
  return level() == Level::kV3 ? vectors_bf16_v3 : vectors_bf16_v2;
}

}  // namespace weft::cpu
