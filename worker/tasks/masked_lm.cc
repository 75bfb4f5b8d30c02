// Masked language modelling (Devlin et al. 2019): tokens that the data have masked are predicted
// from those around them, by the family's masked head and the table of tokens, turned round. Only
// the hidden states of predicted tokens go through the head.
#include "kernels/ops/ops.h"
#include "worker/parallel/tensor_parallel.h"
#include "worker/tasks/head_layers.h"
#include "worker/tasks/predicted_tokens.h"
#include "worker/tasks/tasks.h"
#include "worker/tasks/vocabulary_predictions.h"

namespace weft {
namespace {

class MaskedLm final : public Task {
 public:
  MaskedLm(Rank& rank, const ModelConfig& config, Head head, TaskOptions options)
      : Task(rank, config, std::move(options)), layers_(rank, std::move(head), config, name()) {
    parameters_ = layers_.parameters();
  }
  std::string_view type() const override { return "masked_lm"; }

  int64_t label_count(const TaskRows& rows) const override { return labels_that_count(rows); }

  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    TaskBatch batch;
    batch.tokens = assemble_tokens(rank_, rules_, rows, part);
    const std::vector<int64_t> labels = own_labels(rank_, batch.tokens, rows, part);
    std::vector<int64_t> places, some;
    for (size_t i = 0; i < labels.size(); ++i) {
      if (labels[i] == kNoLabel) continue;
      places.push_back(static_cast<int64_t>(i));
      some.push_back(labels[i]);
    }
    const auto room = static_cast<size_t>(
        predicted_room(std::ssize(labels), std::ssize(places), options_.mask_rate));
    places.resize(room, -1);
    some.resize(room, kNoLabel);
    batch.pooled = Tensor::from<int64_t>(*rank_.allocator, {std::ssize(places)}, places);
    batch.labels = Tensor::from<int64_t>(*rank_.allocator, {std::ssize(some)}, some);
    return batch;
  }

  Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    const Tensor x = chosen(cx, trunk, batch);
    return parallel::vocabulary_linear_cross_entropy(
        cx, tensor(), head_input(cx, batch, x), trunk.token_table(), batch.labels,
        trunk.config().vocabulary,
        {.ignore_index = kNoLabel, .seed = batch.seed, .device_seed = batch.device_seed},
        vocabulary_bias());
  }

  EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    NoGrad guard(cx);
    const Tensor x = chosen(cx, trunk, batch);
    return evaluate_vocabulary(cx, tensor(), head_input(cx, batch, x), trunk.token_table(),
                               vocabulary_bias(), batch.labels, trunk.config().vocabulary);
  }

  Tensor logits(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    const Tensor x = joined(cx, trunk, batch);
    return ops::linear(cx, head_input(cx, batch, x), trunk.token_table(), vocabulary_bias(),
                       ops::WeightLayout::kOutIn);
  }

  std::map<std::string, double> metrics(const EvaluationSums& sums) const override {
    return vocabulary_metrics(sums);
  }

 private:
  Communicator& tensor() const { return rank_.mesh.axis(Axis::kTensor); }

  // Hidden states [B, Tl, H].
  static Tensor joined(Context& cx, Trunk& trunk, const TaskBatch& batch) {
    return trunk.joined_hidden(cx, batch.tokens, trunk.forward(cx, batch.tokens));
  }
  // Those of the predicted tokens, and zeros where there is room for more.
  static Tensor chosen(Context& cx, Trunk& trunk, const TaskBatch& batch) {
    const Tensor x = joined(cx, trunk, batch);
    const int64_t tokens = batch.tokens.ids.elements();
    return ops::embedding(cx, batch.pooled, ops::reshape(cx, x, {tokens, x.dim(2)}));
  }
  // What every rank multiplies with its part of the table.
  Tensor head_input(Context& cx, const TaskBatch& batch, const Tensor& x) const {
    return parallel::column_input(cx, {tensor()}, layers_.forward(cx, batch.tokens, x));
  }
  Tensor vocabulary_bias() const {
    return layers_.head().vocabulary_bias.empty() ? Tensor() : parameters_.back().value;
  }

  const HeadLayers layers_;
};

}  // namespace

std::unique_ptr<Task> make_masked_lm(Rank& rank, const ModelConfig& config, Head head,
                                     TaskOptions options) {
  return std::make_unique<MaskedLm>(rank, config, std::move(head), std::move(options));
}

}  // namespace weft
