#include "worker/evaluation.h"

#include <algorithm>

#include "proto/base/activity.h"
#include "worker/step.h"

namespace weft {
namespace {

// Rows without labels behind the others, as many as blocks of tokens take.
void fill_up(TaskRows& rows, int64_t wanted) {
  const auto own = static_cast<size_t>(rows.rows * rows.tokens);
  const auto all = static_cast<size_t>(wanted * rows.tokens);
  const size_t a_row = rows.rows > 0 ? rows.labels.size() / static_cast<size_t>(rows.rows) : 0;
  if (rows.valid.empty()) rows.valid.assign(own, 1);
  rows.valid.resize(all, 0);
  rows.ids.resize(all, 0);
  if (!rows.positions.empty()) rows.positions.resize(all, 0);
  if (!rows.documents.empty()) rows.documents.resize(all, 0);
  if (!rows.labels.empty()) rows.labels.resize(a_row * static_cast<size_t>(wanted), kNoLabel);
  rows.rows = wanted;
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
  return task.task->metrics(sums);
}

}  // namespace weft
