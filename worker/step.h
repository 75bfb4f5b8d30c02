// One optimizer step: the rows of one batch in micro-batches, gradients summed over the ranks,
// clipped, applied.
//
// Thread safety: the rank's compute thread; a collective.
// Invariants: 1. all ranks apply a step or none does: where a rank's loss or gradient is not
// finite, no weight of any rank changes, not by a bit. 2. how the sums over ranks overlap with the
// backward pass changes no bit either. 3. a step that is left changes nothing.
#pragma once

#include <optional>

#include "proto/job.pb.h"
#include "worker/setup.h"
#include "worker/step_stop.h"

namespace weft {

struct StepResult {
  double loss = 0;           // mean over the batch's labels, before the update; on every rank
  double gradient_norm = 0;  // before clipping
  bool applied = true;       // false: not finite; weights and moments are as they were
  int64_t tokens = 0;        // of the whole batch
  int64_t left_after = 0;    // micro-batches after which it was left, on every rank; 0: it was not
  // The first rank whose own loss or gradients were not finite, if one was (a sum of finite ones
  // may overflow too).
  std::optional<int> culprit;
};

// The rows of a batch that this rank has in each of its micro-batches, as many on every rank.
std::vector<Part> rounds_of(const Rank& rank, const proto::JobSpec& spec, const Task& task,
                            int64_t rows);

// `stop` may leave the step half-way; null: nothing does.
StepResult run_step(Rank& rank, const proto::JobSpec& spec, Training& training, TrainingTask& task,
                    double learning_rate, StepStop* stop = nullptr);

}  // namespace weft
