// Causal language modelling: each token is predicted from those before it.
#include <cmath>
#include <limits>

#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/blocked.h"
#include "worker/tasks/tasks.h"

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
    batch.tokens = assemble_tokens(rank_, attention_, rows, part);
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
      return counted(read_scalar(loss), batch.labels, best.to_vector<int64_t>());
    }
    const Tensor x = ops::reshape(cx, head.input, {batch.labels.elements(), head.input.dim(2)});
    const Tensor labels = ops::reshape(cx, batch.labels, {batch.labels.elements()});
    EvaluationSums sums;
    for (int64_t start = 0; start < x.dim(0); start += kEvaluatedRows) {
      const int64_t length = std::min(kEvaluatedRows, x.dim(0) - start);
      sums.add(evaluate_rows(cx, trunk.config().vocabulary, ops::slice(cx, x, 0, start, length),
                             head.table, ops::slice(cx, labels, 0, start, length)));
    }
    return sums;
  }

  std::map<std::string, double> metrics(const EvaluationSums& sums) const override {
    const double count = static_cast<double>(std::max<int64_t>(1, sums.labels));
    const double loss = sums.loss / count;
    return {{"loss", loss},
            {"perplexity", std::exp(loss)},
            {"accuracy", static_cast<double>(sums.correct) / count},
            {"labels", static_cast<double>(sums.labels)}};
  }

 private:
  static constexpr int64_t kEvaluatedRows = 256;  // whose logits stand in memory at once

  // x [rows, H], labels [rows].
  EvaluationSums evaluate_rows(Context& cx, int64_t vocabulary, const Tensor& x,
                               const Tensor& table, const Tensor& labels) {
    Communicator& tensor = rank_.mesh.axis(Axis::kTensor);
    const Tensor logits = ops::linear(cx, x, table, Tensor(), ops::WeightLayout::kOutIn);
    const Tensor loss = parallel::vocabulary_cross_entropy(cx, tensor, logits, labels, vocabulary,
                                                           {.ignore_index = kNoLabel});
    return counted(read_scalar(loss), labels,
                   likeliest(tensor, ops::cast(cx, logits, DType::kF32), vocabulary));
  }

  // best: the id that is held likeliest at each label.
  static EvaluationSums counted(double loss, const Tensor& labels,
                                const std::vector<int64_t>& best) {
    EvaluationSums sums;
    sums.loss = loss;
    const std::vector<int64_t> wanted = labels.to_vector<int64_t>();
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (wanted[i] == kNoLabel) continue;
      ++sums.labels;
      sums.correct += wanted[i] == best[i] ? 1 : 0;
    }
    return sums;
  }

  // What position `token` of a row predicts: the next token where that counts.
  static int64_t target(const TaskRows& rows, int64_t row, int64_t token) {
    if (token + 1 >= rows.tokens) return kNoLabel;
    const auto at = static_cast<size_t>(row * rows.tokens + token);
    if (!rows.labels.empty()) return rows.labels[at + 1];
    if (!rows.valid.empty() && (rows.valid[at] == 0 || rows.valid[at + 1] == 0)) return kNoLabel;
    if (!rows.documents.empty() && rows.documents[at] != rows.documents[at + 1]) return kNoLabel;
    return rows.ids[at + 1];
  }

  // The id with the largest logit, the smallest such id, over the whole vocabulary. logits
  // [rows, V/t] -> [rows].
  static std::vector<int64_t> likeliest(Communicator& comm, const Tensor& logits,
                                        int64_t vocabulary) {
    const int64_t width = logits.dim(1), rows = logits.dim(0);
    const int64_t first = part_of(vocabulary, comm.size(), comm.rank()).start;
    const auto count = static_cast<size_t>(rows);
    std::vector<float> best(count, -std::numeric_limits<float>::infinity());
    std::vector<int64_t> where(count, first);
    on_host<float>(logits, [&](const float* values) {
      for (size_t row = 0; row < count; ++row, values += width) {
        for (int64_t i = 0; i < width; ++i) {
          if (values[i] <= best[row]) continue;
          best[row] = values[i];
          where[row] = first + i;
        }
      }
    });
    if (comm.size() == 1) return where;
    Tensor whole = Tensor::from<float>(logits.allocator(), {rows}, best);
    comm.all_reduce(whole, ReduceOp::kMax);
    const std::vector<float> largest = whole.to_vector<float>();
    for (size_t row = 0; row < count; ++row) {
      if (best[row] != largest[row]) where[row] = vocabulary;
    }
    Tensor found = Tensor::from<int64_t>(logits.allocator(), {rows}, where);
    comm.all_reduce(found, ReduceOp::kMin);
    return found.to_vector<int64_t>();
  }
};

}  // namespace

std::unique_ptr<Task> make_causal_lm(Rank& rank, const ModelConfig& config, TaskOptions options) {
  return std::make_unique<CausalLm>(rank, config, std::move(options));
}

}  // namespace weft
