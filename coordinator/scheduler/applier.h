// The one place where a planned start becomes a durable one.
//
// Thread safety: as the store's. Invariants: 1. The start is checked again inside the store's
// critical section: the job still waits on the attempt and for the gang that was planned
// for, and no active job holds one of the slots. 2. Otherwise it is kStale and nothing is written.
#pragma once

#include "coordinator/scheduler/plan.h"
#include "coordinator/store/job_store.h"
#include "proto/base/clock.h"
#include "proto/base/status.h"

namespace weft {

// Makes the job `starting` on the next attempt. Returns it as stored.
Result<proto::Job> apply_start(JobStore& store, const PlannedStart& start, const Clock& clock);

}  // namespace weft
