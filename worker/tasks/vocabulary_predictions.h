// What a model of the vocabulary predicts, held against labels. Private to worker/tasks.
//
// Thread safety: the rank's compute thread; a collective of the tensor axis.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "worker/tasks/task.h"

namespace weft {

// Of the logits input table^T + bias, of which a few rows stand in memory at once: x [rows, H],
// table [V/t, H], bias [V/t] or an empty handle, labels [rows]. Nothing is recorded.
EvaluationSums evaluate_vocabulary(Context& cx, Communicator& tensor, const Tensor& x,
                                   const Tensor& table, const Tensor& bias, const Tensor& labels,
                                   int64_t vocabulary);

// best: the id that is held likeliest at each label.
EvaluationSums counted_hits(double loss, const Tensor& labels, const std::vector<int64_t>& best);

// "loss", "perplexity", "accuracy", "labels".
std::map<std::string, double> vocabulary_metrics(const EvaluationSums& sums);

}  // namespace weft
