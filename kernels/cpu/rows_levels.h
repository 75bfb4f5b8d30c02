// The tables of rows.h, one a level of level.h.
#pragma once

#include "kernels/cpu/rows.h"

namespace weft::cpu {
extern const RowKernels<float> rows_f32_v2, rows_f32_v3, rows_f32_v4;
extern const RowKernels<double> rows_f64_v2, rows_f64_v3, rows_f64_v4;
extern const RowKernels<bfloat16> rows_bf16_v2, rows_bf16_v3, rows_bf16_v4, rows_bf16_avx512bf16;
}  // namespace weft::cpu
