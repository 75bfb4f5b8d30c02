// The tables of vectors.h, one a level of x86-64.
#pragma once

#include "kernels/cpu/vectors.h"

namespace weft::cpu {
extern const VectorKernels<float> vectors_f32_v2, vectors_f32_v3, vectors_f32_v4;
extern const VectorKernels<double> vectors_f64_v2, vectors_f64_v3, vectors_f64_v4;
}  // namespace weft::cpu
