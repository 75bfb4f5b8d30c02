// Sequence classification: a linear head without bias on the last real token, as transformers'
// models for sequence classification.
#include <algorithm>

#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/blocked.h"
#include "worker/tasks/tasks.h"

namespace weft {
namespace {

class SequenceClassification final : public Task {
 public:
  SequenceClassification(Rank& rank, const ModelConfig& config, TaskOptions options)
      : Task(rank, config, std::move(options)), pad_token_id_(config.pad_token_id) {
    const ParameterInfo info{name() + ".score.weight",
                             {options_.labels, config.hidden},
                             {},
                             Initializer::kNormal,
                             config.initializer_range,
                             /*decay=*/true,
                             /*unit=*/-1};
    parameters_ = make_parameters(*rank.allocator, {&info, 1});
  }
  std::string_view type() const override { return "sequence_classification"; }

  int64_t label_count(const TaskRows& rows) const override {
    int64_t count = 0;
    for (int64_t label : rows.labels) count += label == kNoLabel ? 0 : 1;
    return count;
  }

  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    TaskBatch batch;
    batch.tokens = assemble_tokens(rank_, attention_, rows, part);
    std::vector<int64_t> labels(static_cast<size_t>(part.length), kNoLabel);
    std::vector<int64_t> pooled(static_cast<size_t>(part.length), -1);
    const int index = rank_.mesh.index(Axis::kSequence);
    for (int64_t row = 0; row < part.length; ++row) {
      const int64_t last = batch.tokens.layout->find(index, last_token(rows, part.start + row));
      if (last < 0) continue;
      pooled[static_cast<size_t>(row)] = last;
      labels[static_cast<size_t>(row)] = rows.labels[static_cast<size_t>(part.start + row)];
    }
    batch.labels = Tensor::from<int64_t>(*rank_.allocator, {part.length}, labels);
    batch.pooled = Tensor::from<int64_t>(*rank_.allocator, {part.length}, pooled);
    return batch;
  }

  Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    return loss_of(cx, class_logits(cx, trunk, batch), batch);
  }

  EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    NoGrad guard(cx);
    const Tensor logits = ops::cast(cx, class_logits(cx, trunk, batch), DType::kF32);
    EvaluationSums sums;
    const Tensor loss = loss_of(cx, logits, batch);
    sums.loss = read_scalar(loss);
    const int64_t classes = logits.dim(1);
    const std::vector<int64_t> labels = batch.labels.to_vector<int64_t>();
    const std::vector<float> all = logits.to_vector<float>();
    for (int64_t row = 0; row < logits.dim(0); ++row) {
      const int64_t label = labels[static_cast<size_t>(row)];
      if (label == kNoLabel) continue;
      const float* values = all.data() + row * classes;
      ++sums.labels;
      sums.correct += std::max_element(values, values + classes) - values == label ? 1 : 0;
    }
    return sums;
  }

  std::map<std::string, double> metrics(const EvaluationSums& sums) const override {
    const double count = static_cast<double>(std::max<int64_t>(1, sums.labels));
    return {{"loss", sums.loss / count},
            {"accuracy", static_cast<double>(sums.correct) / count},
            {"labels", static_cast<double>(sums.labels)}};
  }

  Tensor class_logits(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    const Tensor hidden = trunk.forward(cx, batch.tokens);
    const Tensor joined = trunk.joined_hidden(cx, batch.tokens, hidden);
    const Shape whole{batch.pooled.elements(), batch.tokens.own_tokens, joined.dim(2)};
    const Tensor pooled = ops::gather_rows(cx, ops::reshape(cx, joined, whole), batch.pooled);
    if (rank_.blocks > 0) {
      return parallel::blocked_linear(cx, axis_of(batch), pooled, parameters_[0].value, Tensor(),
                                      {.layout = ops::WeightLayout::kOutIn});
    }
    return ops::linear(cx, pooled, parameters_[0].value, Tensor(), ops::WeightLayout::kOutIn);
  }

 private:
  parallel::TensorAxis axis_of(const TaskBatch& batch) {
    return parallel::blocked_axis(rank_, batch.tokens.ids.elements());
  }
  Tensor loss_of(Context& cx, const Tensor& logits, const TaskBatch& batch) {
    const ops::TokenLoss loss{.ignore_index = kNoLabel};
    return rank_.blocks > 0
               ? parallel::blocked_cross_entropy(cx, axis_of(batch), logits, batch.labels, loss)
               : ops::cross_entropy_sum(cx, logits, batch.labels, loss);
  }

  // transformers' rule: the rightmost token that is not pad_token_id (of a row of padding only, the
  // first). Data may be padded with another id, the tokenizer's, so that padding is passed over by
  // its place too.
  int64_t last_token(const TaskRows& rows, int64_t row) const {
    for (int64_t token = rows.tokens - 1; token > 0; --token) {
      const auto at = static_cast<size_t>(row * rows.tokens + token);
      const bool valid = rows.valid.empty() || rows.valid[at] != 0;
      if (valid && rows.ids[at] != pad_token_id_) return token;
    }
    return 0;
  }

  const std::optional<int64_t> pad_token_id_;
};

}  // namespace

std::unique_ptr<Task> make_sequence_classification(Rank& rank, const ModelConfig& config,
                                                   TaskOptions options) {
  return std::make_unique<SequenceClassification>(rank, config, std::move(options));
}

}  // namespace weft
