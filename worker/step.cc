#include "worker/step.h"

#include <array>

#include "kernels/autograd/tape.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/optimizer/gradients.h"

namespace weft {
namespace {

// Sum over the ranks that saw different rows and tokens.
double sum_over_replicas(Rank& rank, double value) {
  Tensor sum = Tensor::from<double>(*rank.allocator, {1}, std::array<double, 1>{value});
  rank.mesh.axis(Axis::kReplica).all_reduce(sum, ReduceOp::kSum);
  return read_scalar(sum);
}

}  // namespace

StepResult run_step(Rank& rank, const proto::JobSpec& spec, Training& training, TrainingTask& task,
                    double learning_rate) {
  const proto::TrainingSpec& settings = spec.training();
  const TaskRows rows = task.feed.next(settings.batch_size());
  const int64_t labels = task.task->label_count(rows);
  const double share = labels > 0 ? 1.0 / static_cast<double>(labels) : 0.0;
  const double scale = training.loss_scale ? training.loss_scale->scale() : 1.0;
  RandomKey random{settings.seed(), 0};
  random = random.derive(/*a=*/0x64726f70, static_cast<uint64_t>(training.state.step()));

  Tape tape;
  double loss = 0;
  for (const Part& part : micro_batches(rank.mesh, rows.rows, settings.micro_batch_size())) {
    Context cx = rank.context();
    cx.tape = &tape;
    TaskBatch batch = task.task->assemble(rows, part);
    batch.tokens.training = true;
    batch.tokens.recompute = training.recompute;
    if (share > 0) batch.seed = share * scale;
    batch.tokens.random = random;
    const Tensor sum = task.task->loss_sum(cx, *training.trunk, batch);
    loss += read_scalar(sum);
    if (!sum.requires_grad()) continue;
    const Tensor seed = Tensor::full(*rank.allocator, sum.shape(), share * scale, sum.dtype());
    tape.backward(cx, sum, seed);
  }
  reduce_gradients(rank, task.trained);
  StepResult result;
  result.loss = sum_over_replicas(rank, loss) * share;
  result.gradient_norm = global_gradient_norm(rank, task.trained) / scale;
  result.tokens = rows.rows * rows.tokens;
  if (training.loss_scale) result.applied = training.loss_scale->take(result.gradient_norm);
  if (!result.applied) {
    clear_gradients(task.trained);
    return result;
  }
  const double clip = clip_factor(result.gradient_norm, settings.gradient_clip());
  training.optimizer->step(learning_rate, clip / scale);
  return result;
}

}  // namespace weft
