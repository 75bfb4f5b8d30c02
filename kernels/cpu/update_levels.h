// The tables of update.h, one a level of x86-64.
#pragma once

#include "kernels/cpu/update.h"

namespace weft::cpu {
extern const UpdateKernels update_v2, update_v3, update_v4;
}  // namespace weft::cpu
