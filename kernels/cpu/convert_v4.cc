#include <immintrin.h>

#include "kernels/cpu/convert_levels.h"

namespace weft::cpu {
namespace {
#define WEFT_OWN_F16
#include "kernels/cpu/convert_f16_avx512.h"

#include "kernels/cpu/convert_body.h"
}  // namespace

extern const ConvertKernels convert_v4 = kTable;

}  // namespace weft::cpu
