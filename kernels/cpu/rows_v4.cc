#include <immintrin.h>

#include <type_traits>
#include <utility>

#include "kernels/cpu/rows_levels.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/wide.h"

namespace weft::cpu {
namespace {
#include "kernels/cpu/rows_body.h"
}  // namespace

extern const RowKernels<float> rows_f32_v4 = table<float>();
extern const RowKernels<double> rows_f64_v4 = table<double>();
extern const RowKernels<bfloat16> rows_bf16_v4 = table_of_halves();

}  // namespace weft::cpu
