// The tables of norms.h, one a level of level.h; of bf16 also with its instruction to round.
#pragma once

#include "kernels/cpu/norms.h"

namespace weft::cpu {
extern const NormKernels<float> norms_f32_v2, norms_f32_v3, norms_f32_v4;
extern const NormKernels<double> norms_f64_v2, norms_f64_v3, norms_f64_v4;
extern const NormKernels<bfloat16> norms_bf16_v2, norms_bf16_v3, norms_bf16_v4,
    norms_bf16_avx512bf16;
}  // namespace weft::cpu
