#include "worker/tasks/vocabulary_predictions.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/tensor_parallel.h"

namespace weft {
namespace {

constexpr int64_t kEvaluatedRows = 256;  // whose logits stand in memory at once

// The id with the largest logit, the smallest such id, over the whole vocabulary. logits
// [rows, V/t] -> [rows].
std::vector<int64_t> likeliest(Communicator& comm, const Tensor& logits, int64_t vocabulary) {
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

}  // namespace

EvaluationSums evaluate_vocabulary(Context& cx, Communicator& tensor, const Tensor& x,
                                   const Tensor& table, const Tensor& bias, const Tensor& labels,
                                   int64_t vocabulary) {
  NoGrad guard(cx);
  EvaluationSums sums;
  for (int64_t start = 0; start < x.dim(0); start += kEvaluatedRows) {
    const int64_t length = std::min(kEvaluatedRows, x.dim(0) - start);
    const Tensor some = ops::slice(cx, labels, 0, start, length);
    const Tensor logits = ops::linear(cx, ops::slice(cx, x, 0, start, length), table, bias,
                                      ops::WeightLayout::kOutIn);
    const Tensor loss = parallel::vocabulary_cross_entropy(cx, tensor, logits, some, vocabulary,
                                                           {.ignore_index = kNoLabel});
    sums.add(counted_hits(read_scalar(loss), some,
                          likeliest(tensor, ops::cast(cx, logits, DType::kF32), vocabulary)));
  }
  return sums;
}

EvaluationSums counted_hits(double loss, const Tensor& labels, const std::vector<int64_t>& best) {
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

std::map<std::string, double> vocabulary_metrics(const EvaluationSums& sums) {
  const double count = static_cast<double>(std::max<int64_t>(1, sums.labels));
  const double loss = sums.loss / count;
  return {{"loss", loss},
          {"perplexity", std::exp(loss)},
          {"accuracy", static_cast<double>(sums.correct) / count},
          {"labels", static_cast<double>(sums.labels)}};
}

}  // namespace weft
