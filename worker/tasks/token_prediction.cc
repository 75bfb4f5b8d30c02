#include "worker/tasks/token_prediction.h"

#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/blocked.h"
#include "worker/tasks/vocabulary_predictions.h"

namespace weft {

Tensor TokenPrediction::loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) {
  const Tensor hidden = trunk.forward(cx, batch.tokens);
  const TokenHead head = trunk.token_head(cx, batch.tokens, hidden);
  ops::TokenLoss loss{
      .ignore_index = kNoLabel, .seed = batch.seed, .device_seed = batch.device_seed};
  if (rank_.blocks > 0) {
    return parallel::blocked_linear_cross_entropy(
        cx, parallel::blocked_axis(rank_, batch.labels.elements()), head.input, head.table,
        batch.labels, trunk.config().vocabulary, loss);
  }
  return parallel::vocabulary_linear_cross_entropy(cx, rank_.mesh.axis(Axis::kTensor), head.input,
                                                   head.table, batch.labels,
                                                   trunk.config().vocabulary, loss);
}

EvaluationSums TokenPrediction::evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) {
  NoGrad guard(cx);
  const Tensor hidden = trunk.forward(cx, batch.tokens);
  const TokenHead head = trunk.token_head(cx, batch.tokens, hidden);
  if (rank_.blocks > 0) {
    const auto axis = parallel::blocked_axis(rank_, batch.labels.elements());
    Tensor best;
    const Tensor loss = parallel::blocked_linear_cross_entropy(
        cx, axis, head.input, head.table, batch.labels, trunk.config().vocabulary,
        {.ignore_index = kNoLabel}, &best);
    return counted_hits(read_scalar(loss), batch.labels, best.to_vector<int64_t>());
  }
  const int64_t tokens = batch.labels.elements();
  return evaluate_vocabulary(
      cx, rank_.mesh.axis(Axis::kTensor), ops::reshape(cx, head.input, {tokens, head.input.dim(2)}),
      head.table, Tensor(), ops::reshape(cx, batch.labels, {tokens}), trunk.config().vocabulary);
}

Tensor TokenPrediction::logits(Context& cx, Trunk& trunk, const TaskBatch& batch) {
  return trunk.token_logits(cx, batch.tokens, trunk.forward(cx, batch.tokens));
}

std::map<std::string, double> TokenPrediction::metrics(const EvaluationSums& sums) const {
  return vocabulary_metrics(sums);
}

}  // namespace weft
