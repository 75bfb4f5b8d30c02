// Why a job waits, in one sentence for people.
// Thread safety: pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/scheduler/snapshot.h"

namespace weft {

// `free`: free slots of the usable nodes; `fits_now`: they would do, but for reservations; `ahead`:
// the first job that waits, or null.
std::string reason_to_wait(const Snapshot& snapshot, const PendingJob& job, int64_t now_ms,
                           const std::vector<int>& free, bool fits_now, const PendingJob* ahead);

}  // namespace weft
