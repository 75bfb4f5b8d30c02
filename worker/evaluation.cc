#include "worker/evaluation.h"

#include <algorithm>

namespace weft {

std::map<std::string, double> evaluate_task(Rank& rank, const proto::JobSpec& spec,
                                            Training& training, TrainingTask& task) {
  EvaluationSums sums;
  const int64_t total = task.feed.validation_rows();
  const int64_t batch_rows = std::max<int64_t>(1, spec.training().batch_size());
  for (int64_t first = 0; first < total; first += batch_rows) {
    const TaskRows rows = task.feed.validation(first, std::min(batch_rows, total - first));
    for (const Part& part :
         micro_batch_rounds(rank.mesh, rows.rows, spec.training().micro_batch_size())) {
      if (part.length == 0 && !training.gate) continue;  // every rank opens the gate as often
      Context cx = rank.context();
      const TaskBatch batch = task.task->assemble(rows, part);
      sums.add(task.task->evaluate(cx, *training.trunk, batch));
    }
  }
  if (training.gate) training.gate->close();
  sums.reduce(rank);
  return task.task->metrics(sums);
}

}  // namespace weft
