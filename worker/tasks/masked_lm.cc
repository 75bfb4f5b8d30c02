// Masked language modelling (Devlin et al. 2019): tokens that the data have masked are predicted
// from those around them, by the family's masked head and the table of tokens, turned round. Only
// the hidden states of predicted tokens go through the head; of topology-invariant training those
// of each block of tokens, with room for as many in every block.
#include <algorithm>

#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/blocked.h"
#include "worker/parallel/collective_ops.h"
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
    const int64_t all = std::ssize(labels), blocks = own_blocks();
    const int64_t room =
        rank_.blocks > 0
            ? room_of_block(most_in_block(rank_, rows, part), all / blocks)
            : predicted_room(all, all - std::ranges::count(labels, kNoLabel), options_.mask_rate);
    std::vector<int64_t> places, some;
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t i = block * all / blocks; i < (block + 1) * all / blocks; ++i) {
        const int64_t label = labels[static_cast<size_t>(i)];
        if (label == kNoLabel) continue;
        places.push_back(i);
        some.push_back(label);
      }
      places.resize(static_cast<size_t>((block + 1) * room), -1);
      some.resize(static_cast<size_t>((block + 1) * room), kNoLabel);
    }
    batch.pooled = Tensor::from<int64_t>(*rank_.allocator, {std::ssize(places)}, places);
    batch.labels = Tensor::from<int64_t>(*rank_.allocator, {std::ssize(some)}, some);
    return batch;
  }

  Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    const Tensor x = chosen(cx, trunk, batch);
    const ops::TokenLoss loss{
        .ignore_index = kNoLabel, .seed = batch.seed, .device_seed = batch.device_seed};
    if (rank_.blocks > 0) return loss_in_blocks(cx, trunk, batch, x, loss, nullptr);
    return parallel::vocabulary_linear_cross_entropy(
        cx, tensor(), head_input(cx, batch, x), trunk.token_table(), batch.labels,
        trunk.config().vocabulary, loss, vocabulary_bias());
  }

  EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    NoGrad guard(cx);
    const Tensor x = chosen(cx, trunk, batch);
    if (rank_.blocks > 0) {
      Tensor best;
      const Tensor loss = loss_in_blocks(cx, trunk, batch, x, {.ignore_index = kNoLabel}, &best);
      return counted_hits(read_scalar(loss), batch.labels, best.to_vector<int64_t>());
    }
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

  // Of topology-invariant training, of this replica's tokens; else all of them are one.
  int64_t own_blocks() const {
    return rank_.blocks > 0 ? rank_.blocks / rank_.mesh.size(Axis::kReplica) : 1;
  }
  // In units, so that few sizes come up.
  static int64_t room_of_block(int64_t predicted, int64_t tokens) {
    constexpr int64_t kUnit = 8;
    return std::min(tokens, std::max<int64_t>(1, (predicted + kUnit - 1) / kUnit) * kUnit);
  }
  // Every rank of the tensor axis has computed all rows of x, of which the loss takes its blocks'.
  Tensor loss_in_blocks(Context& cx, Trunk& trunk, const TaskBatch& batch, const Tensor& x,
                        const ops::TokenLoss& loss, Tensor* best) const {
    const Tensor own = parallel::split_along(cx, tensor(), layers_.forward(cx, batch.tokens, x), 0);
    return parallel::blocked_linear_cross_entropy(
        cx, parallel::blocked_axis(rank_, batch.labels.elements()), own, trunk.token_table(),
        batch.labels, trunk.config().vocabulary, loss, best, parallel::kKeptLogits,
        vocabulary_bias());
  }

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
