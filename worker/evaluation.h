// A task's metrics on its validation data.
//
// Thread safety: the rank's compute thread; a collective.
#pragma once

#include <map>
#include <string>

#include "worker/setup.h"

namespace weft {

// "loss", "accuracy", "labels", "perplexity" as the task has them, the same on every rank.
std::map<std::string, double> evaluate_task(Rank& rank, const proto::JobSpec& spec,
                                            Training& training, TrainingTask& task);

}  // namespace weft
