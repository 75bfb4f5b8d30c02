#include "kernels/cpu/norms.h"

#include "kernels/cpu/level.h"
#include "kernels/cpu/norms_levels.h"

namespace weft::cpu {

template <>
const NormKernels<float>& norms<float>() {
  if (level() >= Level::kV4) return norms_f32_v4;
  return level() == Level::kV3 ? norms_f32_v3 : norms_f32_v2;
}

template <>
const NormKernels<double>& norms<double>() {
  if (level() >= Level::kV4) return norms_f64_v4;
  return level() == Level::kV3 ? norms_f64_v3 : norms_f64_v2;
}

template <>
const NormKernels<bfloat16>& norms<bfloat16>() {
  if (level() >= Level::kBf16) return norms_bf16_avx512bf16;
  if (level() == Level::kV4) return norms_bf16_v4;
  return level() == Level::kV3 ? norms_bf16_v3 : norms_bf16_v2;
}

}  // namespace weft::cpu
