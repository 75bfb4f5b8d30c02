// Token classification: a class for each token, of which those that begin a word have labels.
#include <algorithm>

#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/blocked.h"
#include "worker/tasks/entities.h"
#include "worker/tasks/head_layers.h"
#include "worker/tasks/predicted_tokens.h"
#include "worker/tasks/tasks.h"

namespace weft {
namespace {

class TokenClassification final : public Task {
 public:
  TokenClassification(Rank& rank, const ModelConfig& config, Head head, TaskOptions options)
      : Task(rank, config, std::move(options)),
        layers_(rank, std::move(head), config, name()),
        tags_(EntityTags::parse(options_.label_names)) {
    parameters_ = layers_.parameters();
  }
  std::string_view type() const override { return "token_classification"; }

  bool for_own_classes(const ParameterInfo& info) const override {
    return gives_classes(layers_.head(), file_name(info.name));
  }

  int64_t label_count(const TaskRows& rows) const override { return labels_that_count(rows); }

  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    TaskBatch batch;
    batch.tokens = assemble_tokens(rank_, rules_, rows, part);
    batch.labels = Tensor::from<int64_t>(*rank_.allocator, batch.tokens.ids.shape(),
                                         own_labels(rank_, batch.tokens, rows, part));
    return batch;
  }

  Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    return loss_of(cx, logits(cx, trunk, batch), batch);
  }

  EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    NoGrad guard(cx);
    const Tensor scores = ops::cast(cx, logits(cx, trunk, batch), DType::kF32);
    EvaluationSums sums;
    sums.loss = read_scalar(loss_of(cx, scores, batch));
    const std::vector<int64_t> labels = batch.labels.to_vector<int64_t>();
    const std::vector<int64_t> found = best_classes(scores);
    for (size_t i = 0; i < labels.size(); ++i) {
      if (labels[i] == kNoLabel) continue;
      ++sums.labels;
      sums.correct += labels[i] == found[i] ? 1 : 0;
    }
    if (tags_) count_entities(batch.tokens, labels, found, sums);
    return sums;
  }

  std::map<std::string, double> metrics(const EvaluationSums& sums) const override {
    const double count = static_cast<double>(std::max<int64_t>(1, sums.labels));
    std::map<std::string, double> metrics{{"loss", sums.loss / count},
                                          {"accuracy", static_cast<double>(sums.correct) / count},
                                          {"labels", static_cast<double>(sums.labels)}};
    if (tags_) {
      const int64_t both = sums.entities_found + sums.entities_wanted;
      metrics["f1"] =
          both == 0 ? 0.0
                    : 2 * static_cast<double>(sums.entities_correct) / static_cast<double>(both);
    }
    return metrics;
  }

  Tensor logits(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    const Tensor hidden = trunk.forward(cx, batch.tokens);
    const Tensor joined = trunk.joined_hidden(cx, batch.tokens, hidden);
    return layers_.forward(cx, batch.tokens, joined);
  }

 private:
  Tensor loss_of(Context& cx, const Tensor& scores, const TaskBatch& batch) {
    const int64_t tokens = batch.labels.elements();
    const Tensor rows = ops::reshape(cx, scores, {tokens, scores.shape()[-1]});
    const Tensor labels = ops::reshape(cx, batch.labels, {tokens});
    const ops::TokenLoss loss{.ignore_index = kNoLabel};
    if (rank_.blocks == 0) return ops::cross_entropy_sum(cx, rows, labels, loss);
    return parallel::blocked_cross_entropy(cx, parallel::blocked_axis(rank_, tokens), rows, labels,
                                           loss);
  }

  // Labels and classes of the words of whole rows, which lie on several ranks of the sequence axis.
  // A collective.
  void count_entities(const TokenBatch& batch, const std::vector<int64_t>& labels,
                      const std::vector<int64_t>& found, EvaluationSums& sums) {
    const int64_t rows = batch.ids.dim(0);
    // Of each token of the rows, its label and its class plus 1; 0: it lies elsewhere or has none.
    std::vector<int64_t> own(static_cast<size_t>(2 * rows * batch.tokens), 0);
    size_t at = 0;
    for (int64_t row = 0; row < rows; ++row) {
      for (const Part& run : batch.layout->runs(rank_.mesh.index(Axis::kSequence))) {
        for (int64_t token = run.start; token < run.start + run.length; ++token, ++at) {
          if (labels[at] == kNoLabel) continue;
          const auto place = static_cast<size_t>(2 * (row * batch.tokens + token));
          own[place] = labels[at] + 1;
          own[place + 1] = found[at] + 1;
        }
      }
    }
    Communicator& sequence = rank_.mesh.axis(Axis::kSequence);
    Tensor whole = Tensor::from<int64_t>(*rank_.allocator, {std::ssize(own)}, own);
    if (sequence.size() > 1) sequence.all_reduce(whole, ReduceOp::kSum);
    if (sequence.rank() > 0) return;
    const std::vector<int64_t> all = whole.to_vector<int64_t>();
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<int64_t> wanted, given;
      for (int64_t token = 0; token < batch.tokens; ++token) {
        const auto place = static_cast<size_t>(2 * (row * batch.tokens + token));
        if (all[place] == 0) continue;
        wanted.push_back(all[place] - 1);
        given.push_back(all[place + 1] - 1);
      }
      add_entities(tags_->entities(wanted), tags_->entities(given), sums);
    }
  }

  static void add_entities(const std::vector<Entity>& wanted, const std::vector<Entity>& found,
                           EvaluationSums& sums) {
    sums.entities_wanted += std::ssize(wanted);
    sums.entities_found += std::ssize(found);
    sums.entities_correct += std::ranges::count_if(found, [&](const Entity& entity) {
      return std::ranges::find(wanted, entity) != wanted.end();
    });
  }

  const HeadLayers layers_;
  const std::optional<EntityTags> tags_;  // where the classes are such
};

}  // namespace

std::unique_ptr<Task> make_token_classification(Rank& rank, const ModelConfig& config, Head head,
                                                TaskOptions options) {
  return std::make_unique<TokenClassification>(rank, config, std::move(head), std::move(options));
}

}  // namespace weft
