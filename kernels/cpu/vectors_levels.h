// The tables of vectors.h, one a level of level.h.
#pragma once

#include "kernels/cpu/vectors.h"

namespace weft::cpu {
extern const VectorKernels<float> vectors_f32_v2, vectors_f32_v3, vectors_f32_v4;
extern const VectorKernels<double> vectors_f64_v2, vectors_f64_v3, vectors_f64_v4;
extern const VectorKernels<bfloat16> vectors_bf16_v2, vectors_bf16_v3, vectors_bf16_v4,
    vectors_bf16_avx512bf16;
}  // namespace weft::cpu
