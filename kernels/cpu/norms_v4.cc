#include <immintrin.h>

#include <utility>

#include "kernels/cpu/norms_levels.h"
#include "kernels/cpu/past_caches.h"
#include "kernels/cpu/vector_math.h"

namespace weft::cpu {
namespace {
#include "kernels/cpu/norms_body.h"
}  // namespace

extern const NormKernels<float> norms_f32_v4 = table<float>();
extern const NormKernels<double> norms_f64_v4 = table<double>();
extern const NormKernels<bfloat16> norms_bf16_v4 = table<bfloat16>();

}  // namespace weft::cpu
