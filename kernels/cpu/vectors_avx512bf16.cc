#include <immintrin.h>

#include <bit>
#include <type_traits>
#include <utility>

#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/vectors_levels.h"

namespace weft::cpu {
namespace {
#include "kernels/cpu/vectors_body.h"
}  // namespace

extern const VectorKernels<bfloat16> vectors_bf16_avx512bf16 = table_of_halves();

}  // namespace weft::cpu
