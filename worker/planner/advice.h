// What would let a job fit that fits nowhere, so that what its refusal advises can help.
// Thread safety: pure functions.
#pragma once

#include <string>

#include "worker/planner/planner.h"

namespace weft {

// `requirements` are those of the job that was refused, with a mesh of its own or not; its device's
// memory is known. For people, in the order in which they are easier to get: another mesh on the
// slots that there are, the fewest slots of that size (at most kAdvisedSlotsMax), memory of the
// slots that there are; or that no number of such slots would do. Empty where the job's own rules
// allow no mesh, which slots and memory do not change.
std::string what_would_fit(const PlanRequirements& requirements);

inline constexpr int kAdvisedSlotsMax = 1024;

}  // namespace weft
