// What becomes of a job whose attempt ended without its ranks saying that training is over.
// Thread safety: pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/store/job_store.h"
#include "proto/node.pb.h"

namespace weft {

// Job.restarts counts the restarts in a row that brought nothing: a committed checkpoint that goes
// further than the one before sets it to 0, and so does a person's resume. max_restarts bounds that
// count, not the total, so a long job survives any number of failures that are far apart, and one
// that fails at the same place again and again ends.
struct RestartPolicy {
  double first_seconds = 2;  // before the first restart in a row; doubles with each further one
  // The longest wait. A training attempt that lasted so long waits only first_seconds, whether or
  // not it wrote a checkpoint: it failed too late to be worth a long wait.
  double most_seconds = 300;
};

struct EndCause {
  std::string message;    // for people
  bool retryable = true;  // false: a restart would fail again
  bool planned = false;   // a node was stopped in good order: costs no restart and no waiting
};

// What the ends of an attempt on its nodes come to, the head's first (of a node that has not told
// its own, an empty message and code 0). The first node that knows a reason tells it; what is
// permanent comes before everything else.
EndCause cause_of(const std::vector<proto::AttemptExit>& exits);

int64_t back_off_ms(const RestartPolicy& policy, int restarts_in_row);

// Running and starting jobs go back to the queue until max_restarts is used up; a job that was
// being cancelled is cancelled, one that was being paused is paused.
void end_attempt(JobEdit& edit, const EndCause& cause, const RestartPolicy& policy, int64_t now_ms);

}  // namespace weft
