// The tables of update.h, one a level of x86-64; that of AVX512_BF16 rounds by its instruction.
#pragma once

#include "kernels/cpu/update.h"

namespace weft::cpu {
extern const UpdateKernels update_v2, update_v3, update_v4, update_avx512bf16;
}  // namespace weft::cpu
