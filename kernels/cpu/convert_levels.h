// The tables of convert.h, one a level.
#pragma once

#include "kernels/cpu/convert.h"

namespace weft::cpu {
extern const ConvertKernels convert_v2, convert_v3, convert_v4, convert_avx512bf16;
}  // namespace weft::cpu
