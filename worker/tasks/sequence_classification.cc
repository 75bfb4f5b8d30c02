// Sequence classification: the family's head on one token of each row, as transformers' models for
// sequence classification. Multiple choice, as transformers' models for it: the head gives a number
// for each row, and those of a question's choices, rows one after the other, are its classes'.
// Image classification: the head on an image's class token.
#include <algorithm>

#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/blocked.h"
#include "worker/tasks/head_layers.h"
#include "worker/tasks/tasks.h"

namespace weft {
namespace {

class SequenceClassification final : public Task {
 public:
  SequenceClassification(Rank& rank, const ModelConfig& config, HeadKind kind, Head head,
                         TaskOptions options)
      : Task(rank, config, std::move(options)),
        kind_(kind),
        choices_(kind == HeadKind::kChoice ? options_.labels : 1),
        pad_token_id_(config.pad_token_id),
        layers_(rank, std::move(head), config, name()) {
    parameters_ = layers_.parameters();
  }
  std::string_view type() const override {
    if (kind_ == HeadKind::kImage) return "image_classification";
    return kind_ == HeadKind::kChoice ? "multiple_choice" : "sequence_classification";
  }
  int64_t rows_together() const override { return choices_; }

  int64_t label_count(const TaskRows& rows) const override {
    int64_t count = 0;
    for (int64_t label : rows.labels) count += label == kNoLabel ? 0 : 1;
    return count;
  }

  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    TaskBatch batch;
    batch.tokens = assemble_tokens(rank_, rules_, rows, part);
    WEFT_CHECK(part.start % choices_ == 0 && part.length % choices_ == 0,
               "rows {} to {} part a question of {}", part.start, part.start + part.length,
               choices_);
    const int64_t labeled = part.length / choices_, first = part.start / choices_;
    std::vector<int64_t> labels(static_cast<size_t>(labeled), kNoLabel);
    std::vector<int64_t> pooled(static_cast<size_t>(part.length), -1);
    const int index = rank_.mesh.index(Axis::kSequence);
    for (int64_t row = 0; row < part.length; ++row) {
      const int64_t place = batch.tokens.layout->find(index, pooled_token(rows, part.start + row));
      if (place < 0) continue;
      pooled[static_cast<size_t>(row)] = place;
      const int64_t at = row / choices_;
      labels[static_cast<size_t>(at)] = rows.labels[static_cast<size_t>(first + at)];
    }
    batch.labels = Tensor::from<int64_t>(*rank_.allocator, {labeled}, labels);
    batch.pooled = Tensor::from<int64_t>(*rank_.allocator, {part.length}, pooled);
    return batch;
  }

  Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    return loss_of(cx, logits(cx, trunk, batch), batch);
  }

  EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    NoGrad guard(cx);
    const Tensor logits = ops::cast(cx, this->logits(cx, trunk, batch), DType::kF32);
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

  bool for_own_classes(const ParameterInfo& info) const override {
    return gives_classes(layers_.head(), file_name(info.name));
  }

  Tensor logits(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    const Tensor hidden = trunk.forward(cx, batch.tokens);
    const Tensor joined = trunk.joined_hidden(cx, batch.tokens, hidden);
    const Shape whole{batch.pooled.elements(), batch.tokens.own_tokens, joined.dim(2)};
    const Tensor pooled = ops::gather_rows(cx, ops::reshape(cx, joined, whole), batch.pooled);
    const Tensor scores = layers_.forward(cx, batch.tokens, pooled);
    if (choices_ == 1) return scores;
    return ops::reshape(cx, scores, {scores.dim(0) / choices_, choices_});
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

  // transformers' rule of the last one, kLast: the rightmost token that is not pad_token_id (of a
  // row of padding only, the first). Data may be padded with another id, the tokenizer's, so that
  // padding is passed over by its place too; kEnd looks at nothing else.
  int64_t pooled_token(const TaskRows& rows, int64_t row) const {
    const PooledToken pooled = layers_.head().pooled;
    if (pooled == PooledToken::kFirst) return 0;
    const bool by_id = pooled == PooledToken::kLast && pad_token_id_.has_value();
    for (int64_t token = rows.tokens - 1; token > 0; --token) {
      const auto at = static_cast<size_t>(row * rows.tokens + token);
      const bool valid = rows.valid.empty() || rows.valid[at] != 0;
      if (valid && !(by_id && rows.ids[at] == *pad_token_id_)) return token;
    }
    return 0;
  }

  const HeadKind kind_;
  const int64_t choices_;  // rows of a label; 1: each has its own
  const std::optional<int64_t> pad_token_id_;
  const HeadLayers layers_;
};

}  // namespace

std::unique_ptr<Task> make_sequence_classification(Rank& rank, const ModelConfig& config,
                                                   HeadKind kind, Head head, TaskOptions options) {
  return std::make_unique<SequenceClassification>(rank, config, kind, std::move(head),
                                                  std::move(options));
}

}  // namespace weft
