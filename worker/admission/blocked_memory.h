// What a rank of topology-invariant training holds at the moments of a step
// (worker/parallel/blocked.h): of docs/PERFORMANCE.md, What topology-invariant training costs.
// Internal to worker/admission.
//
// Thread safety: pure functions.
#pragma once

#include <vector>

#include "worker/admission/memory_sizes.h"

namespace weft {

std::vector<MemoryEstimate> blocked_moments(const StepMemory& m);

}  // namespace weft
