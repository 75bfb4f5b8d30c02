// Labels of single tokens.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/tasks/task.h"

namespace weft {

// Labels of the whole step's batch that count.
int64_t labels_that_count(const TaskRows& rows);

// Of rows with a label for each token, those of this rank's tokens of the rows `part`, [B, Tl].
std::vector<int64_t> own_labels(const Rank& rank, const TokenBatch& batch, const TaskRows& rows,
                                Part part);

// Of topology-invariant training: the most labels that count in one of the blocks of the tokens
// that are computed at once, those of all ranks' parts together, of which `part` is this rank's.
int64_t most_in_block(const Rank& rank, const TaskRows& rows, Part part);

// Of each row of scores, the first of the largest.
std::vector<int64_t> best_classes(const Tensor& scores);

// For how many predicted tokens a masked_lm has room, of `tokens` that are each predicted with
// probability `rate`: six standard deviations more than are expected, so that nearly every step has
// the same shapes; of a step that has more, all tokens.
int64_t predicted_room(int64_t tokens, int64_t predicted, double rate);

}  // namespace weft
