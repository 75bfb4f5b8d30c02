// A task's metrics on its validation data.
//
// Thread safety: the rank's compute thread; a collective.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "worker/setup.h"

namespace weft {

// Micro-batches of a task's validation data, as many on every rank; 0: it has none.
int64_t evaluation_rounds(const Rank& rank, const proto::JobSpec& spec, const TrainingTask& task);

// "loss", "accuracy", "labels", "perplexity", "exact_match", "f1" as the task has them, the same on
// every rank. `leaves` is asked after each micro-batch, on all ranks, which it has to answer alike
// (worker/step_stop.h); true: the rest is left, and there are no metrics.
std::optional<std::map<std::string, double>> evaluate_task(Rank& rank, const proto::JobSpec& spec,
                                                           Training& training, TrainingTask& task,
                                                           const std::function<bool()>& leaves);

}  // namespace weft
