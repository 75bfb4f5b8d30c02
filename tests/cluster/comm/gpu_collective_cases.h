// Collectives among a GPU's other work; for transports whose tensors lie on GPUs.
#pragma once

#include "tests/cluster/comm/collective_cases.h"

namespace weft::testing {

// allocator: the GPU's.
std::span<const CollectiveCase> gpu_collective_cases();

}  // namespace weft::testing
