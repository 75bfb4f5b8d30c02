// The tables of rows.h, one a level of x86-64.
#pragma once

#include "kernels/cpu/rows.h"

namespace weft::cpu {
extern const RowKernels<float> rows_f32_v2, rows_f32_v3, rows_f32_v4;
extern const RowKernels<double> rows_f64_v2, rows_f64_v3, rows_f64_v4;
}  // namespace weft::cpu
