// Numbers drawn by place, for data sets.
//
// Thread safety: a free function.
#pragma once

#include <cstdint>

#include "kernels/ops/random.h"

namespace weft {

// Uniform in [0, bound), bound >= 1, for draw `index`: the high half of a 64 x 32 bit product, with
// Lemire's rejection (Lemire 2019) so that no value is favoured.
uint64_t below(RandomKey key, uint64_t index, uint64_t bound);

}  // namespace weft
