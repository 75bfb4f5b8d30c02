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

}  // namespace weft::cpu
