// Sentence embeddings: the mean of a text's hidden states, of length 1. Learned from pairs of texts
// that belong together, each second text among those of the whole step (Henderson et al. 2017;
// sentence-transformers' MultipleNegativesRankingLoss). Rows i and n + i of a step's 2n are a pair.
//
// Every replica sums over the tokens that it has, and the sums of all rows are added up over all
// replicas; so each has all embeddings, and takes the loss of its share of the pairs. Of
// topology-invariant training it has whole rows, whose sums are gathered, and takes the loss of all
// pairs.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/ops/norms.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/blocked.h"
#include "worker/parallel/collective_ops.h"
#include "worker/tasks/predicted_tokens.h"
#include "worker/tasks/tasks.h"
#include "worker/tasks/vocabulary_predictions.h"

namespace weft {
namespace {

constexpr double kScale = 20;           // of cosines, as sentence-transformers has it
constexpr double kSquareLeast = 1e-24;  // of a vector's length that is divided by

class EmbeddingTask final : public Task {
 public:
  EmbeddingTask(Rank& rank, const ModelConfig& config, TaskOptions options)
      : Task(rank, config, std::move(options)) {}
  std::string_view type() const override { return "embedding"; }
  bool joins_replicas() const override { return true; }

  int64_t label_count(const TaskRows& rows) const override { return pairs_of(rows); }

  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    const Part mine =
        part_of(rows.rows, rank_.mesh.size(Axis::kData), rank_.mesh.index(Axis::kData));
    WEFT_CHECK(part.start == mine.start && part.length == mine.length,
               "an embedding's rows are computed at once");
    TaskBatch batch;
    batch.tokens = assemble_tokens(rank_, rules_, rows, part);
    batch.counted = counted(batch.tokens, rows, part);
    std::vector<int64_t> places(static_cast<size_t>(rows.rows), -1);
    for (int64_t row = 0; row < part.length; ++row) {
      places[static_cast<size_t>(part.start + row)] = row;
    }
    batch.pooled = Tensor::from<int64_t>(*rank_.allocator, {rows.rows}, places);
    const int64_t pairs = pairs_of(rows);
    std::vector<int64_t> labels(static_cast<size_t>(pairs), kNoLabel);
    const Communicator& replicas = rank_.mesh.axis(Axis::kReplica);
    const Part own =
        rank_.blocks > 0 ? Part{0, pairs} : part_of(pairs, replicas.size(), replicas.rank());
    for (int64_t pair = own.start; pair < own.start + own.length; ++pair) {
      labels[static_cast<size_t>(pair)] = pair;
    }
    batch.labels = Tensor::from<int64_t>(*rank_.allocator, {pairs}, labels);
    return batch;
  }

  Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    return loss_of(cx, cosines(cx, logits(cx, trunk, batch), batch), batch);
  }

  EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    NoGrad guard(cx);
    const Tensor scores = cosines(cx, logits(cx, trunk, batch), batch);
    EvaluationSums sums =
        counted_hits(read_scalar(loss_of(cx, scores, batch)), batch.labels, best_classes(scores));
    // Of several replicas that have all pairs one counts them.
    if (rank_.blocks > 0 && rank_.mesh.index(Axis::kReplica) > 0) sums.labels = sums.correct = 0;
    return sums;
  }

  std::map<std::string, double> metrics(const EvaluationSums& sums) const override {
    const double count = static_cast<double>(std::max<int64_t>(1, sums.labels));
    return {{"loss", sums.loss / count},
            {"accuracy", static_cast<double>(sums.correct) / count},
            {"labels", static_cast<double>(sums.labels)}};
  }

  // [rows, H] of the whole step.
  Tensor logits(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    const Tensor hidden = trunk.forward(cx, batch.tokens);
    Tensor joined = trunk.joined_hidden(cx, batch.tokens, hidden);
    if (is_half(joined.dtype())) joined = ops::cast(cx, joined, DType::kF32);
    const Tensor counted = ops::cast(cx, batch.counted, joined.dtype());
    const int64_t features = joined.dim(2);
    // The length of a sum is of no account, so that it is as good as the mean.
    const Tensor sums = rank_.blocks > 0 ? sums_in_blocks(cx, counted, joined, batch)
                                         : sums_of_all(cx, counted, joined, batch);
    const double root = std::sqrt(static_cast<double>(features));
    const Tensor unit = Tensor::full(*rank_.allocator, {features}, 1 / root, sums.dtype());
    return ops::rms_norm(cx, sums, unit, kSquareLeast / static_cast<double>(features));
  }

 private:
  // Rows that blocks of tokens are filled up with are padding, behind the others.
  int64_t pairs_of(const TaskRows& rows) const {
    if (rank_.blocks == 0 || rows.valid.empty()) return rows.rows / 2;
    const auto last = std::find(rows.valid.rbegin(), rows.valid.rend(), 1);
    const int64_t tokens = rows.valid.rend() - last;
    return ((tokens + rows.tokens - 1) / rows.tokens + 1) / 2;
  }

  // Of all rows of the step; joined: of this rank's, [B, Tl, H].
  Tensor sums_of_all(Context& cx, const Tensor& counted, const Tensor& joined,
                     const TaskBatch& batch) const {
    const Tensor own =
        ops::reshape(cx, ops::matmul(cx, counted, joined), {joined.dim(0), joined.dim(2)});
    Communicator& replicas = rank_.mesh.axis(Axis::kReplica);
    const Tensor placed = ops::embedding(cx, batch.pooled, own);
    return parallel::copy_to_axis(cx, replicas, parallel::sum_over_axis(cx, replicas, placed));
  }
  Tensor sums_in_blocks(Context& cx, const Tensor& counted, const Tensor& joined,
                        const TaskBatch& batch) const {
    const int64_t rows = counted.dim(0), tokens = counted.dim(2), features = joined.dim(2);
    const Tensor apart = ops::reshape(cx, joined, {rows, tokens, features});
    const Tensor terms = ops::multiply(cx, apart, ops::reshape(cx, counted, {rows, tokens, 1}));
    Context in_order = cx;  // of the tokens of a row, as their number alone says
    in_order.block_count = 1;
    return parallel::join_along(cx, rank_.mesh.axis(Axis::kReplica), ops::sum(in_order, terms, 1),
                                0, batch.pooled.elements());
  }

  // The pairs in blocks, all of them on every rank: rows are whole, so the sequence axis has one.
  parallel::TensorAxis pairs_axis(int64_t pairs) const {
    return {rank_.mesh.axis(Axis::kTensor), false, pairs,
            static_cast<int>(std::gcd(pairs, int64_t{rank_.blocks})),
            &rank_.mesh.axis(Axis::kSequence)};
  }

  // float [B, 1, Tl]: 1 of a token of a text, 0 of padding.
  Tensor counted(const TokenBatch& batch, const TaskRows& rows, Part part) const {
    std::vector<float> counted;
    for (int64_t row = part.start; row < part.start + part.length; ++row) {
      for (const Part& run : batch.layout->runs(rank_.mesh.index(Axis::kSequence))) {
        for (int64_t token = run.start; token < run.start + run.length; ++token) {
          const auto at = static_cast<size_t>(row * rows.tokens + token);
          counted.push_back(rows.valid.empty() || rows.valid[at] != 0 ? 1 : 0);
        }
      }
    }
    return Tensor::from<float>(*rank_.allocator, {part.length, 1, batch.own_tokens}, counted);
  }

  // [rows, H] -> [pairs, pairs]: of each first text with each second one, scaled.
  Tensor cosines(Context& cx, const Tensor& embeddings, const TaskBatch& batch) const {
    const int64_t pairs = batch.labels.elements();
    const Tensor first = ops::slice(cx, embeddings, 0, 0, pairs);
    const Tensor second = ops::slice(cx, embeddings, 0, pairs, pairs);
    constexpr auto kLayout = ops::WeightLayout::kOutIn;
    const Tensor products = rank_.blocks > 0
                                ? parallel::blocked_linear(cx, pairs_axis(pairs), first, second,
                                                           Tensor(), {.layout = kLayout})
                                : ops::linear(cx, first, second, Tensor(), kLayout);
    return ops::scale(cx, products, kScale);
  }
  Tensor loss_of(Context& cx, const Tensor& scores, const TaskBatch& batch) const {
    const ops::TokenLoss loss{.ignore_index = kNoLabel};
    if (rank_.blocks == 0) return ops::cross_entropy_sum(cx, scores, batch.labels, loss);
    return parallel::blocked_cross_entropy(cx, pairs_axis(batch.labels.elements()), scores,
                                           batch.labels, loss);
  }
};

}  // namespace

std::unique_ptr<Task> make_embedding(Rank& rank, const ModelConfig& config, TaskOptions options) {
  return std::make_unique<EmbeddingTask>(rank, config, std::move(options));
}

}  // namespace weft
