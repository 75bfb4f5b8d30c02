#include "worker/evaluation.h"

#include <algorithm>
#include <array>

#include "proto/base/activity.h"
#include "worker/step.h"

namespace weft {
namespace {

// Rows without labels behind the others, as many as blocks of tokens take.
void fill_up(TaskRows& rows, int64_t wanted) {
  const auto own = static_cast<size_t>(rows.rows * rows.tokens);
  const auto all = static_cast<size_t>(wanted * rows.tokens);
  // Of several rows there may be one label, of one row several.
  const auto labels =
      static_cast<size_t>(std::ssize(rows.labels) * wanted / std::max<int64_t>(1, rows.rows));
  if (rows.valid.empty()) rows.valid.assign(own, 1);
  rows.valid.resize(all, 0);
  if (!rows.ids.empty()) rows.ids.resize(all, 0);
  for (std::vector<float>* values : {&rows.patches, &rows.features}) {
    if (rows.rows == 0) break;
    values->resize(values->size() / static_cast<size_t>(rows.rows) * static_cast<size_t>(wanted));
  }
  if (!rows.positions.empty()) rows.positions.resize(all, 0);
  if (!rows.token_types.empty()) rows.token_types.resize(all, 0);
  if (!rows.documents.empty()) rows.documents.resize(all, 0);
  if (!rows.labels.empty()) rows.labels.resize(labels, kNoLabel);
  if (!rows.windows.empty()) rows.windows.resize(static_cast<size_t>(wanted));
  rows.rows = wanted;
}

// Of all windows of the data, which are spread over the ranks that saw different rows. A
// collective.
void gather_answers(Rank& rank, int64_t windows, std::vector<FoundAnswer>& answers) {
  Communicator& replica = rank.mesh.axis(Axis::kReplica);
  if (replica.size() == 1) return;
  constexpr size_t kNumbers = 4;
  std::vector<double> own(static_cast<size_t>(windows) * kNumbers, 0);
  for (const FoundAnswer& answer : answers) {
    const auto at = own.begin() + static_cast<int64_t>(kNumbers) * answer.sample;
    // Without a span its score, which is -inf, counts for nothing.
    const bool has = answer.span.first >= 0;
    std::ranges::copy(
        std::array{static_cast<double>(answer.span.first), static_cast<double>(answer.span.last),
                   has ? answer.score : 0.0, answer.none_score},
        at);
  }
  Tensor all = Tensor::from<double>(*rank.allocator, {std::ssize(own)}, own);
  replica.all_reduce(all, ReduceOp::kSum);
  answers.clear();
  const std::vector<double> whole = all.to_vector<double>();
  for (int64_t window = 0; window < windows; ++window) {
    const double* of = whole.data() + static_cast<int64_t>(kNumbers) * window;
    answers.push_back(
        {window, {static_cast<int64_t>(of[0]), static_cast<int64_t>(of[1])}, of[2], of[3]});
  }
}

void evaluate_rows(Rank& rank, Training& training, TrainingTask& task, const TaskRows& rows,
                   Part part, EvaluationSums& sums) {
  const auto evaluate = [&] {
    Context cx = rank.context();
    const TaskBatch batch = task.task->assemble(rows, part);
    sums.add(task.task->evaluate(cx, *training.trunk, batch));
  };
  if (training.passes) {
    training.passes->as_it_is(evaluate);
  } else {
    evaluate();
  }
}

}  // namespace

int64_t evaluation_rounds(const Rank& rank, const proto::JobSpec& spec, const TrainingTask& task) {
  const int64_t total = task.feed.validation_rows();
  const int64_t batch_rows = std::max<int64_t>(1, spec.training().batch_size());
  const auto rounds = [&](int64_t rows) {
    const int64_t whole = rank.blocks > 0 ? batch_rows : rows;
    return rows > 0 ? std::ssize(rounds_of(rank, spec, *task.task, whole)) : 0;
  };
  return total / batch_rows * rounds(batch_rows) + rounds(total % batch_rows);
}

std::optional<std::map<std::string, double>> evaluate_task(Rank& rank, const proto::JobSpec& spec,
                                                           Training& training, TrainingTask& task,
                                                           const std::function<bool()>& leaves) {
  training.optimizer->finish_values();  // of ranks without rows, too
  EvaluationSums sums;
  const int64_t total = task.feed.validation_rows();
  const int64_t batch_rows = std::max<int64_t>(1, spec.training().batch_size());
  for (int64_t first = 0; first < total; first += batch_rows) {
    TaskRows rows = task.feed.validation(first, std::min(batch_rows, total - first));
    if (rank.blocks > 0) fill_up(rows, batch_rows);
    for (const Part& part : rounds_of(rank, spec, *task.task, rows.rows)) {
      // Every rank opens the gate as often.
      if (part.length > 0 || training.gate || task.task->joins_replicas()) {
        if (rank.activity != nullptr) rank.activity->tick();
        evaluate_rows(rank, training, task, rows, part, sums);
      }
      if (leaves()) {
        if (training.gate) training.gate->close();
        return std::nullopt;
      }
    }
  }
  if (training.gate) training.gate->close();
  sums.reduce(rank);
  std::map<std::string, double> metrics = task.task->metrics(sums);
  if (task.task->finds_answers()) {
    gather_answers(rank, total, sums.answers);
    metrics.merge(task.feed.answer_scores(sums.answers));
  }
  return metrics;
}

}  // namespace weft
