// Permutation language modelling (Yang et al. 2019): the last tokens of an order of each row's are
// predicted, each from those before it in that order, by queries that stand behind the row's
// tokens (Predictions) and the table of tokens, turned round.
#include <algorithm>

#include "kernels/ops/ops.h"
#include "worker/parallel/tensor_parallel.h"
#include "worker/tasks/head_layers.h"
#include "worker/tasks/predicted_tokens.h"
#include "worker/tasks/tasks.h"
#include "worker/tasks/vocabulary_predictions.h"

namespace weft {
namespace {

// [rows, K, K] of predictions of one place; none where each has its own.
std::vector<float> asked_together(std::span<const int64_t> places, int64_t count) {
  std::vector<float> together;
  bool any = false;
  for (size_t row = 0; row < places.size(); row += static_cast<size_t>(count)) {
    const auto own = places.subspan(row, static_cast<size_t>(count));
    for (size_t i = 0; i < own.size(); ++i) {
      for (size_t j = 0; j < own.size(); ++j) {
        together.push_back(own[i] == own[j] ? 1 : 0);
        any = any || (i != j && own[i] == own[j]);
      }
    }
  }
  return any ? together : std::vector<float>();
}

class PermutationLm final : public Task {
 public:
  PermutationLm(Rank& rank, const ModelConfig& config, Head head, TaskOptions options)
      : Task(rank, config, std::move(options)) {
    parameters_ = HeadLayers(rank, std::move(head), config, name()).parameters();
  }
  std::string_view type() const override { return "permutation_lm"; }

  int64_t label_count(const TaskRows& rows) const override { return labels_that_count(rows); }

  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    const int64_t count = rows.predictions;
    const auto cut = [&](const std::vector<int64_t>& whole) {
      return std::span(whole).subspan(static_cast<size_t>(part.start * count),
                                      static_cast<size_t>(part.length * count));
    };
    TaskBatch batch;
    batch.tokens = assemble_tokens(rank_, rules_, rows, part);
    add_predictions(rows, part, cut(rows.places), batch.tokens);
    batch.labels = Tensor::from<int64_t>(*rank_.allocator, {part.length * count}, cut(rows.labels));
    return batch;
  }

  Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    const Tensor x = asked(cx, trunk, batch);
    return parallel::vocabulary_linear_cross_entropy(
        cx, tensor(), x, trunk.token_table(), batch.labels, trunk.config().vocabulary,
        {.ignore_index = kNoLabel, .seed = batch.seed, .device_seed = batch.device_seed},
        vocabulary_bias());
  }

  EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    NoGrad guard(cx);
    const Tensor x = asked(cx, trunk, batch);
    return evaluate_vocabulary(cx, tensor(), x, trunk.token_table(), vocabulary_bias(),
                               batch.labels, trunk.config().vocabulary);
  }

  Tensor logits(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    const Tensor x = asked(cx, trunk, batch);
    const Tensor y =
        ops::linear(cx, x, trunk.token_table(), vocabulary_bias(), ops::WeightLayout::kOutIn);
    return ops::reshape(cx, y,
                        {batch.tokens.ids.dim(0), batch.tokens.predictions.count, y.shape()[-1]});
  }

  std::map<std::string, double> metrics(const EvaluationSums& sums) const override {
    return vocabulary_metrics(sums);
  }

 private:
  Communicator& tensor() const { return rank_.mesh.axis(Axis::kTensor); }
  const Tensor& vocabulary_bias() const { return parameters_.back().value; }

  // places [B, K]. A token sees itself and those before it in the order, a prediction these alone;
  // the context sees itself.
  void add_predictions(const TaskRows& rows, Part part, std::span<const int64_t> places,
                       TokenBatch& batch) const {
    const int64_t count = rows.predictions, all = rows.tokens + count;
    const bool typed = static_cast<bool>(batch.token_types);
    std::vector<int64_t> stands, marks, query_order, key_order, types;
    for (int64_t row = 0; row < part.length; ++row) {
      const int64_t first = (part.start + row) * rows.tokens;
      for (int64_t i = 0; i < all; ++i) {
        const bool asks = i >= rows.tokens;
        const int64_t place = asks ? places[static_cast<size_t>(row * count + i - rows.tokens)] : i;
        const auto token = static_cast<size_t>(first + place);
        const int64_t order = rows.order[token];
        stands.push_back(place);
        marks.push_back(asks ? 0 : -1);
        query_order.push_back(asks ? std::max<int64_t>(0, order - 1) : order);
        if (!asks) key_order.push_back(order);
        if (typed) types.push_back(rows.token_types[token]);
      }
    }
    const auto numbers = [&](const std::vector<int64_t>& of, int64_t each) {
      return Tensor::from<int64_t>(*rank_.allocator, {part.length, each}, of);
    };
    batch.predictions = {.count = count,
                         .places = numbers(stands, all),
                         .marks = numbers(marks, all),
                         .query_order = numbers(query_order, all),
                         .key_order = numbers(key_order, rows.tokens)};
    if (const std::vector<float> together = asked_together(places, count); !together.empty()) {
      batch.predictions.together =
          Tensor::from<float>(*rank_.allocator, {part.length, count, count}, together);
    }
    if (typed) batch.token_types = numbers(types, all);
    batch.tokens = batch.own_tokens = all;
    batch.layout = std::make_shared<const parallel::SequenceLayout>(
        parallel::SequenceLayout::contiguous(all, 1));
  }

  // What every rank multiplies with its part of the table, [B * K, H].
  Tensor asked(Context& cx, Trunk& trunk, const TaskBatch& batch) const {
    const TokenBatch& tokens = batch.tokens;
    const int64_t count = tokens.predictions.count;
    const Tensor all = trunk.joined_hidden(cx, tokens, trunk.forward(cx, tokens));
    const Tensor own = ops::slice(cx, all, 1, tokens.row_tokens(), count);
    return parallel::column_input(cx, {tensor()},
                                  ops::reshape(cx, own, {own.dim(0) * count, own.dim(2)}));
  }
};

}  // namespace

std::unique_ptr<Task> make_permutation_lm(Rank& rank, const ModelConfig& config, Head head,
                                          TaskOptions options) {
  return std::make_unique<PermutationLm>(rank, config, std::move(head), std::move(options));
}

}  // namespace weft
