// Question answering: which token of a text an answer begins with, and which it ends with
// (transformers' models for it). The softmax runs over all tokens of a row, padding too, which lie
// on several ranks of the sequence axis.
#include <algorithm>
#include <array>
#include <span>

#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/blocked.h"
#include "worker/parallel/collective_ops.h"
#include "worker/parallel/tensor_parallel.h"
#include "worker/tasks/answer_spans.h"
#include "worker/tasks/head_layers.h"
#include "worker/tasks/tasks.h"

namespace weft {
namespace {

class QuestionAnswering final : public Task {
 public:
  QuestionAnswering(Rank& rank, const ModelConfig& config, Head head, TaskOptions options)
      : Task(rank, config, std::move(options)), layers_(rank, std::move(head), config, name()) {
    parameters_ = layers_.parameters();
  }
  std::string_view type() const override { return "question_answering"; }
  bool finds_answers() const override { return true; }

  int64_t label_count(const TaskRows& rows) const override { return rows.rows; }

  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    TaskBatch batch;
    batch.tokens = assemble_tokens(rank_, rules_, rows, part);
    std::vector<int64_t> labels;
    for (int64_t end = kSpanEnds * part.start; end < kSpanEnds * (part.start + part.length);
         ++end) {
      const int64_t label = rows.labels[static_cast<size_t>(end)];
      labels.push_back(label == kNoLabel ? label : number_of(batch.tokens, label));
    }
    batch.labels = Tensor::from<int64_t>(*rank_.allocator, {std::ssize(labels)}, labels);
    if (rows.windows.empty()) return batch;
    const auto first = rows.windows.begin() + part.start;
    batch.windows.assign(first, first + part.length);
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
    find_answers(batch, scores, sums);
    return sums;
  }

  std::map<std::string, double> metrics(const EvaluationSums& sums) const override {
    const double count = static_cast<double>(std::max<int64_t>(1, sums.labels));
    return {{"loss", sums.loss / count},
            {"accuracy", static_cast<double>(sums.correct) / count},
            {"labels", static_cast<double>(sums.labels)}};
  }

  Tensor logits(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    const Tensor hidden = trunk.forward(cx, batch.tokens);
    const Tensor joined = trunk.joined_hidden(cx, batch.tokens, hidden);
    const Tensor scores = layers_.forward(cx, batch.tokens, joined);
    return ops::reshape(cx, scores,
                        {batch.tokens.ids.dim(0), batch.tokens.own_tokens, kSpanEnds});
  }

 private:
  Communicator& sequence() const { return rank_.mesh.axis(Axis::kSequence); }

  // Where a token of the row is, counted through all tokens of the first rank of the sequence axis,
  // then the second's, ...
  int64_t number_of(const TokenBatch& batch, int64_t token) const {
    int index = 0;
    while (batch.layout->find(index, token) < 0) ++index;
    return tokens_before(batch, index) + batch.layout->find(index, token);
  }
  static int64_t tokens_before(const TokenBatch& batch, int index) {
    int64_t before = 0;
    for (int i = 0; i < index; ++i) before += batch.layout->length(i);
    return before;
  }

  // A row's is the mean of its two ends' cross-entropies. Every rank of the sequence axis has the
  // whole loss, of which each gives its share, and the gradient of its own logits; with blocks a
  // rank has whole rows.
  Tensor loss_of(Context& cx, const Tensor& scores, const TaskBatch& batch) const {
    const TokenBatch& tokens = batch.tokens;
    constexpr std::array kTokensLast{0, 2, 1};
    const Tensor rows = ops::reshape(cx, ops::permute(cx, scores, kTokensLast),
                                     {batch.labels.elements(), tokens.own_tokens});
    if (rank_.blocks > 0) {
      const Tensor whole =
          parallel::blocked_cross_entropy(cx, parallel::blocked_axis(rank_, tokens.ids.elements()),
                                          rows, batch.labels, {.ignore_index = kNoLabel});
      return ops::scale(cx, whole, 1.0 / kSpanEnds);
    }
    const Tensor loss =
        parallel::split_cross_entropy(cx, sequence(), rows, batch.labels,
                                      tokens_before(tokens, sequence().rank()), tokens.tokens);
    const double shares = static_cast<double>(kSpanEnds * sequence().size());
    return ops::scale(cx, parallel::copy_to_axis(cx, sequence(), loss), 1 / shares);
  }

  // By whole rows, whose logits come from all ranks of the sequence axis. A collective.
  void find_answers(const TaskBatch& batch, const Tensor& scores, EvaluationSums& sums) const {
    const TokenBatch& tokens = batch.tokens;
    const int64_t rows = tokens.ids.dim(0);
    const auto row_logits = static_cast<size_t>(kSpanEnds * tokens.tokens);
    std::vector<float> own(static_cast<size_t>(rows) * row_logits, 0);
    const std::vector<float> given = scores.to_vector<float>();
    size_t at = 0;
    for (int64_t row = 0; row < rows; ++row) {
      for (const Part& run : tokens.layout->runs(sequence().rank())) {
        for (int64_t token = run.start; token < run.start + run.length; ++token) {
          for (int64_t end = 0; end < kSpanEnds; ++end) {
            own[static_cast<size_t>((row * kSpanEnds + end) * tokens.tokens + token)] = given[at++];
          }
        }
      }
    }
    if (sequence().size() > 1) {
      Tensor whole = Tensor::from<float>(*rank_.allocator, {std::ssize(own)}, own);
      sequence().all_reduce(whole, ReduceOp::kSum);
      own = whole.to_vector<float>();
    }
    if (sequence().rank() > 0) return;
    const std::vector<int64_t> labels = batch.labels.to_vector<int64_t>();
    const std::vector<uint8_t> valid =
        tokens.key_valid ? tokens.key_valid.to_vector<uint8_t>() : std::vector<uint8_t>();
    const auto width = static_cast<size_t>(tokens.tokens);
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
      if (labels[2 * row] == kNoLabel) continue;
      const auto ends = std::span(own).subspan(row * row_logits, row_logits);
      const auto starts_at = ends.first(width), ends_at = ends.last(width);
      ++sums.labels;
      sums.correct += is_right(tokens, starts_at, labels[2 * row]) &&
                      is_right(tokens, ends_at, labels[2 * row + 1]);
      if (batch.windows.empty()) continue;
      const auto length = valid.empty()
                              ? width
                              : static_cast<size_t>(std::count(
                                    valid.begin() + static_cast<int64_t>(row * width),
                                    valid.begin() + static_cast<int64_t>((row + 1) * width), 1));
      sums.answers.push_back(
          best_answer(starts_at.first(length), ends_at.first(length), batch.windows[row]));
    }
  }

  bool is_right(const TokenBatch& tokens, std::span<const float> logits, int64_t label) const {
    return number_of(tokens, std::ranges::max_element(logits) - logits.begin()) == label;
  }

  const HeadLayers layers_;
};

}  // namespace

std::unique_ptr<Task> make_question_answering(Rank& rank, const ModelConfig& config, Head head,
                                              TaskOptions options) {
  return std::make_unique<QuestionAnswering>(rank, config, std::move(head), std::move(options));
}

}  // namespace weft
