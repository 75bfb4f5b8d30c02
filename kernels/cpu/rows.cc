#include "kernels/cpu/rows.h"

#include "kernels/cpu/level.h"
#include "kernels/cpu/rows_levels.h"

namespace weft::cpu {

template <>
const RowKernels<float>& rows<float>() {
  if (level() >= Level::kV4) return rows_f32_v4;
  return level() == Level::kV3 ? rows_f32_v3 : rows_f32_v2;
}

template <>
const RowKernels<double>& rows<double>() {
  if (level() >= Level::kV4) return rows_f64_v4;
  return level() == Level::kV3 ? rows_f64_v3 : rows_f64_v2;
}

template <>
const RowKernels<bfloat16>& rows<bfloat16>() {
  if (level() >= Level::kBf16) return rows_bf16_avx512bf16;
  if (level() == Level::kV4) return rows_bf16_v4;
  return level() == Level::kV3 ? rows_bf16_v3 : rows_bf16_v2;
}

}  // namespace weft::cpu
