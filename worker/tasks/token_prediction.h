// Tasks whose model predicts at each of its tokens the one that follows: what they have in common
// is all but which labels there are. Private to worker/tasks.
//
// Thread safety: as task.h.
#pragma once

#include "worker/tasks/task.h"

namespace weft {

class TokenPrediction : public Task {
 public:
  Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) final;
  EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) final;
  Tensor logits(Context& cx, Trunk& trunk, const TaskBatch& batch) final;
  std::map<std::string, double> metrics(const EvaluationSums& sums) const final;

 protected:
  using Task::Task;
};

}  // namespace weft
