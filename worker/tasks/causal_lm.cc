// Causal language modelling: each token is predicted from those before it.
#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/blocked.h"
#include "worker/tasks/tasks.h"
#include "worker/tasks/vocabulary_predictions.h"

namespace weft {
namespace {

class CausalLm final : public Task {
 public:
  CausalLm(Rank& rank, const ModelConfig& config, TaskOptions options)
      : Task(rank, config, std::move(options)) {}
  std::string_view type() const override { return "causal_lm"; }

  int64_t label_count(const TaskRows& rows) const override {
    int64_t count = 0;
    for (int64_t row = 0; row < rows.rows; ++row) {
      for (int64_t token = 0; token < rows.tokens; ++token) {
        count += target(rows, row, token) == kNoLabel ? 0 : 1;
      }
    }
    return count;
  }

  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    TaskBatch batch;
    batch.tokens = assemble_tokens(rank_, rules_, rows, part);
    std::vector<int64_t> labels;
    labels.reserve(static_cast<size_t>(batch.tokens.ids.elements()));
    for (int64_t row = 0; row < part.length; ++row) {
      for (const Part& run : batch.tokens.layout->runs(rank_.mesh.index(Axis::kSequence))) {
        for (int64_t i = 0; i < run.length; ++i) {
          labels.push_back(target(rows, part.start + row, run.start + i));
        }
      }
    }
    batch.labels = Tensor::from<int64_t>(*rank_.allocator, batch.tokens.ids.shape(), labels);
    return batch;
  }

  Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
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

  EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
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
    return evaluate_vocabulary(cx, rank_.mesh.axis(Axis::kTensor),
                               ops::reshape(cx, head.input, {tokens, head.input.dim(2)}),
                               head.table, Tensor(), ops::reshape(cx, batch.labels, {tokens}),
                               trunk.config().vocabulary);
  }

  Tensor logits(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    return trunk.token_logits(cx, batch.tokens, trunk.forward(cx, batch.tokens));
  }

  std::map<std::string, double> metrics(const EvaluationSums& sums) const override {
    return vocabulary_metrics(sums);
  }

 private:
  // What position `token` of a row predicts: the next token where that counts.
  static int64_t target(const TaskRows& rows, int64_t row, int64_t token) {
    if (token + 1 >= rows.tokens) return kNoLabel;
    const auto at = static_cast<size_t>(row * rows.tokens + token);
    if (!rows.labels.empty()) return rows.labels[at + 1];
    if (!rows.valid.empty() && (rows.valid[at] == 0 || rows.valid[at + 1] == 0)) return kNoLabel;
    if (!rows.documents.empty() && rows.documents[at] != rows.documents[at + 1]) return kNoLabel;
    return rows.ids[at + 1];
  }
};

}  // namespace

std::unique_ptr<Task> make_causal_lm(Rank& rank, const ModelConfig& config, TaskOptions options) {
  return std::make_unique<CausalLm>(rank, config, std::move(options));
}

}  // namespace weft
