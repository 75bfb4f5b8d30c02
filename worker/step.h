// One optimizer step: the rows of one batch in micro-batches, gradients summed over the ranks,
// clipped, applied.
//
// Thread safety: the rank's compute thread; a collective.
#pragma once

#include "proto/job.pb.h"
#include "worker/setup.h"

namespace weft {

struct StepResult {
  double loss = 0;           // mean over the batch's labels, before the update; on every rank
  double gradient_norm = 0;  // before clipping
  bool applied = true;       // false: left out by the loss scale, which is lower now
  int64_t tokens = 0;        // of the whole batch
};

StepResult run_step(Rank& rank, const proto::JobSpec& spec, Training& training, TrainingTask& task,
                    double learning_rate);

}  // namespace weft
