// The task types that make_task knows, and what they share. Private to worker/tasks.
// Thread safety: as task.h.
#pragma once

#include "worker/tasks/task.h"

namespace weft {

std::unique_ptr<Task> make_causal_lm(Rank& rank, TaskOptions options);
std::unique_ptr<Task> make_sequence_classification(Rank& rank, const ModelConfig& config,
                                                   TaskOptions options);

// This rank's tokens of the rows `part`: everything of a TokenBatch but the random key.
TokenBatch assemble_tokens(Rank& rank, const TaskRows& rows, Part part);

}  // namespace weft
