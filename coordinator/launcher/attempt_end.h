// What becomes of a job whose attempt ended without its ranks saying that training is over.
// Thread safety: pure.
#pragma once

#include <cstdint>
#include <string>

#include "coordinator/store/job_store.h"

namespace weft {

struct RestartPolicy {
  double first_seconds = 2;  // before the first restart; doubles with each further one
  double most_seconds = 300;
};

struct EndCause {
  std::string message;    // for people
  bool retryable = true;  // false: a restart would fail again
  bool planned = false;   // a node was stopped in good order: costs no restart and no waiting
};

int64_t back_off_ms(const RestartPolicy& policy, int restarts);

// Running and starting jobs go back to the queue until max_restarts is used up; a job that was
// being cancelled is cancelled, one that was being paused is paused.
void end_attempt(JobEdit& edit, const EndCause& cause, const RestartPolicy& policy, int64_t now_ms);

}  // namespace weft
