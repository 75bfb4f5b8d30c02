#include "worker/serve/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "kernels/ops/ops.h"
#include "worker/data/text_errors.h"
#include "worker/serve/transcribe.h"
#include "worker/tasks/answer_spans.h"

namespace weft {
namespace {

// In double, so that they sum to 1 in whatever is printed.
std::vector<double> softmax(std::span<const float> logits) {
  const double top = double{*std::ranges::max_element(logits)};
  std::vector<double> shares;
  for (const float logit : logits) shares.push_back(std::exp(double{logit} - top));
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= sum;
  return shares;
}

struct Rows {
  std::vector<float> values;
  size_t width = 0;
};

Status not_finite(const LoadedModel& model, const char* what) {
  return Status(Code::kFailedPrecondition,
                model.folder.path + " gives " + what +
                    "; its weights may be broken, or too large for the precision");
}

// What the task gives of all of them.
Result<Rows> finite_logits(Rank& rank, LoadedModel& model, const TaskRows& rows) {
  Context cx = rank.context();
  const TaskBatch batch = model.task->assemble(rows, {0, rows.rows});
  const Tensor logits = ops::cast(cx, model.task->logits(cx, *model.trunk, batch), DType::kF32);
  Rows found{logits.to_vector<float>(), static_cast<size_t>(logits.shape()[-1])};
  if (std::ranges::all_of(found.values, [](float value) { return std::isfinite(value); })) {
    return found;
  }
  return fail(not_finite(model, "scores that are no finite numbers"));
}

// Of what the model writes of the rows' recordings.
Status add_errors(Rank& rank, LoadedModel& model, const TaskRows& rows, ErrorSums& errors) {
  WEFT_ASSIGN_OR_RETURN(const std::vector<std::string> found,
                        transcribe(rank, model, rows, model.folder.config->target_positions));
  for (int64_t row = 0; row < rows.rows; ++row) {
    errors.add(target_text(*model.tokenizer, rows, row), found[static_cast<size_t>(row)]);
  }
  return {};
}

}  // namespace

Result<std::map<std::string, double>> evaluate(Rank& rank, LoadedModel& model, const Dataset& data,
                                               int64_t rows_at_once, const OnSamples& on_samples) {
  EvaluationSums sums;
  ErrorSums errors;
  for (int64_t first = 0; first < data.samples(); first += rows_at_once) {
    const TaskRows rows = data.range(first, rows_at_once);
    Context cx = rank.context();
    const TaskBatch batch = model.task->assemble(rows, {0, rows.rows});
    sums.add(model.task->evaluate(cx, *model.trunk, batch));
    if (!std::isfinite(sums.loss)) {
      return fail(not_finite(model, "a loss that is no finite number"));
    }
    if (model.audio) WEFT_RETURN_IF_ERROR(add_errors(rank, model, rows, errors));
    if (!on_samples) continue;
    const int64_t done = std::min(first + rows_at_once, data.samples());
    on_samples(done, model.task->metrics(sums).at("loss"));
  }
  std::map<std::string, double> metrics = model.task->metrics(sums);
  if (model.audio) {
    metrics["wer"] = errors.word_error_rate();
    metrics["cer"] = errors.character_error_rate();
  }
  if (model.task->finds_answers()) metrics.merge(answer_scores(data, sums.answers));
  return metrics;
}

Result<std::vector<std::vector<double>>> class_probabilities(Rank& rank, LoadedModel& model,
                                                             const Dataset& texts) {
  WEFT_ASSIGN_OR_RETURN(const Rows scores,
                        finite_logits(rank, model, texts.range(0, texts.samples())));
  std::vector<std::vector<double>> probabilities;
  for (size_t at = 0; at < scores.values.size(); at += scores.width) {
    probabilities.push_back(softmax(std::span(scores.values).subspan(at, scores.width)));
  }
  return probabilities;
}

Result<std::vector<std::vector<float>>> embeddings(Rank& rank, LoadedModel& model,
                                                   const Dataset& texts) {
  WEFT_ASSIGN_OR_RETURN(const Rows found,
                        finite_logits(rank, model, texts.range(0, texts.samples())));
  std::vector<std::vector<float>> vectors;
  for (auto at = found.values.begin(); at != found.values.end();
       at += static_cast<int64_t>(found.width)) {
    vectors.emplace_back(at, at + static_cast<int64_t>(found.width));
  }
  return vectors;
}

Result<std::vector<FoundAnswer>> likeliest_answers(Rank& rank, LoadedModel& model,
                                                   const Dataset& questions, int64_t rows_at_once) {
  std::vector<FoundAnswer> found;
  for (int64_t first = 0; first < questions.samples(); first += rows_at_once) {
    const TaskRows rows = questions.range(first, rows_at_once);
    WEFT_ASSIGN_OR_RETURN(const Rows logits, finite_logits(rank, model, rows));
    for (int64_t row = 0; row < rows.rows; ++row) {
      std::vector<float> starts, ends;
      for (int64_t at = row * rows.tokens; at < (row + 1) * rows.tokens; ++at) {
        if (!rows.valid.empty() && rows.valid[static_cast<size_t>(at)] == 0) break;
        starts.push_back(logits.values[static_cast<size_t>(kSpanEnds * at)]);
        ends.push_back(logits.values[static_cast<size_t>(kSpanEnds * at + 1)]);
      }
      found.push_back(likeliest_answer(starts, ends, rows.windows[static_cast<size_t>(row)]));
    }
  }
  return found;
}

}  // namespace weft
