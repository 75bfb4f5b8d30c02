// Why a job waits, in one sentence for people.
// Thread safety: pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/scheduler/plan.h"
#include "coordinator/scheduler/snapshot.h"

namespace weft {

// `starts`: of this plan so far; `free`: free slots of the usable nodes after those; `ahead`: the
// job whose reservation alone keeps this one from what is free, or null.
std::string reason_to_wait(const Snapshot& snapshot, const std::vector<PlannedStart>& starts,
                           const PendingJob& job, int64_t now_ms, const std::vector<int>& free,
                           const PendingJob* ahead);

}  // namespace weft
