#include <immintrin.h>

#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/vectors_levels.h"

namespace weft::cpu {
namespace {
#include "kernels/cpu/vectors_body.h"
}  // namespace

extern const VectorKernels<float> vectors_f32_v4 = table<float>();
extern const VectorKernels<double> vectors_f64_v4 = table<double>();

}  // namespace weft::cpu
