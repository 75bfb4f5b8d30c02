// The scheduler: a pure function of a snapshot and the time.
//
// Jobs are looked at by priority, then by order of submission. One that fits starts. One that does
// not gets a reservation at the earliest time at which it will fit, from the time limits of what
// runs; a later job starts only where it fits beside every reservation for its whole run time. What
// runs without a limit counts as running for a very long time, so its slots are reserved for the
// job that waits for them, and a job without a limit stays outside of them: nobody starves.
//
// Thread safety: pure. Invariants: 1. A start's slots are free in the snapshot and in no other
// start.
// 2. A gang starts whole. 3. No start delays a reservation of an earlier job. 4. Every pending job
// is either started or has a reason.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "coordinator/scheduler/snapshot.h"

namespace weft {

struct PlannedStart {
  std::string job;
  int attempt_before = 0;  // the start is stale once the job has another number
  std::vector<NodeSlots> placement;
  Gang gang = {};  // what that holds; the start is stale once the job asks for something else
};

struct PlannedWait {
  std::string reason;       // for people
  bool infeasible = false;  // no set of the known nodes could ever hold it
  int64_t expected_ms = 0;  // known start; 0: not known
};

struct Plan {
  std::vector<PlannedStart> starts;
  std::map<std::string, PlannedWait> waits;
};

Plan plan(const Snapshot& snapshot, int64_t now_ms);

}  // namespace weft
