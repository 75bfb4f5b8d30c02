#include <immintrin.h>

#include <bit>
#include <type_traits>
#include <utility>

#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/vectors_levels.h"
#include "kernels/cpu/wide.h"

namespace weft::cpu {
namespace {
#include "kernels/cpu/vectors_body.h"
}  // namespace

extern const VectorKernels<float> vectors_f32_v2 = table<float>();
extern const VectorKernels<double> vectors_f64_v2 = table<double>();
extern const VectorKernels<bfloat16> vectors_bf16_v2 = table_of_halves();

}  // namespace weft::cpu
