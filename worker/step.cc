#include "worker/step.h"

#include <array>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/autograd/tape.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "proto/base/activity.h"
#include "proto/json/job_rules.h"
#include "worker/admission/traffic.h"
#include "worker/optimizer/gradients.h"

namespace weft {
namespace {

// What every micro-batch of a step has in common.
struct Pass {
  const TaskRows& rows;
  double share = 0;  // of one label in the mean
  double scale = 1;  // of the loss
  RandomKey random;
};

TaskBatch assemble(const Rank& rank, const Training& training, const TrainingTask& task,
                   const Pass& pass, Part part) {
  TaskBatch batch = task.task->assemble(pass.rows, part);
  batch.tokens.training = true;
  batch.tokens.recompute = training.recompute;
  batch.tokens.random = pass.random;
  if (pass.share > 0) batch.seed = pass.share * pass.scale;
  if (pass.share > 0 && !rank.allocator->device().is_cpu()) {
    batch.device_seed = Tensor::full(*rank.allocator, Shape{}, batch.seed);
  }
  return batch;
}

// Loss of this rank's labels of one micro-batch, a scalar, not yet divided. Gradients are added up,
// of `start` times the loss; `sends`: they are complete with this one.
Tensor forward_and_backward(Rank& rank, Training& training, TrainingTask& task,
                            const TaskBatch& batch, double start, bool sends) {
  Tape tape(rank.activity);
  Context cx = rank.context();
  cx.tape = &tape;
  std::optional<Activity::Phase> phase(std::in_place, rank.activity, "forward");
  const Tensor sum = task.task->loss_sum(cx, *training.trunk, batch);
  if (!sum.requires_grad()) return sum;
  phase.reset();
  phase.emplace(rank.activity, "backward");
  training.optimizer->finish_values();
  if (sends) training.reducer->arm(tape);
  const bool there = batch.device_seed && batch.device_seed.spec() == sum.spec();
  const Tensor seed =
      there ? batch.device_seed : Tensor::full(*rank.allocator, sum.shape(), start, sum.dtype());
  tape.backward(cx, sum, seed);
  return sum.detach();
}

// The same of the rows `part`, on a GPU as a recording where that can be.
Tensor micro_batch(Rank& rank, Training& training, TrainingTask& task, const Pass& pass, Part part,
                   bool sends) {
  const auto compute = [&](const TaskBatch& batch) {
    return forward_and_backward(rank, training, task, batch, pass.share * pass.scale, sends);
  };
  TaskBatch batch = assemble(rank, training, task, pass, part);
  if (!training.passes) return compute(batch);
  const bool sends_now = sends && rank.mesh.size(Axis::kReplica) > 1;
  if (batch.device_seed && !sends_now) {
    return training.passes->run(&task - training.tasks.data(), std::move(batch), compute);
  }
  Tensor loss;
  training.passes->as_it_is([&] { loss = compute(batch); });
  return loss;
}

// The first rank of the world that says so.
int first_rank(Rank& rank, bool here) {
  Communicator& world = rank.mesh.axis(Axis::kWorld);
  Tensor first =
      Tensor::full(*rank.allocator, {1}, here ? world.rank() : world.size(), DType::kI64);
  world.all_reduce(first, ReduceOp::kMin);
  return static_cast<int>(read_scalar(first));
}

// Sums of loss and squares over the world, and whether all of it is finite.
void agree(Rank& rank, const GradientReducer& gradients, double loss, StepResult& result) {
  const bool wrong = !std::isfinite(loss) || !gradients.finite();
  // The others repeat it, unless theirs went wrong alone.
  const Axis repeats = rank.blocks > 0 ? Axis::kWorld : Axis::kTensor;
  const bool counts = rank.mesh.index(repeats) == 0 || !std::isfinite(loss);
  const double own_loss = counts ? loss : 0;
  Tensor sums =
      Tensor::from<double>(*rank.allocator, {4},
                           std::array<double, 4>{own_loss, gradients.squares(), wrong ? 1.0 : 0.0,
                                                 gradients.squares_rest()});
  rank.mesh.axis(Axis::kWorld).all_reduce(sums, ReduceOp::kSum);
  const std::vector<double> total = sums.to_vector<double>();
  result.loss = total[0];
  result.gradient_norm = std::sqrt(total[1] + total[3]);
  // Of ranks with blocks nobody knows whose term it was.
  if (total[2] > 0 && rank.blocks == 0) result.culprit = first_rank(rank, wrong);
}

// Of a step that is left after so many micro-batches, whose batch is to come again: no gradient is
// on its way between two of them.
StepResult leave(Training& training, TrainingTask& task, const proto::DataPosition& before,
                 int64_t done) {
  if (training.gate) training.gate->close();
  training.reducer->clear();
  const Status restored = task.feed.restore(before);
  WEFT_CHECK(restored.ok(), "{}", restored.to_string());
  StepResult result;
  result.left_after = done;
  return result;
}

}  // namespace

std::vector<Part> rounds_of(const Rank& rank, const proto::JobSpec& spec, const Task& task,
                            int64_t rows) {
  const int64_t size = spec.training().micro_batch_size();
  return rank.blocks > 0 ? blocked_rounds(rank.mesh, rows, size * spec.parallel().data())
                         : micro_batch_rounds(rank.mesh, rows, size, task.rows_together());
}

StepResult run_step(Rank& rank, const proto::JobSpec& spec, Training& training, TrainingTask& task,
                    double learning_rate, StepStop* stop) {
  const proto::TrainingSpec& settings = spec.training();
  const proto::DataPosition position = task.feed.position();
  TaskRows rows;
  {
    const Activity::Phase phase(rank.activity, "data");
    rows = task.feed.next(settings.batch_size());
  }
  const int64_t labels = task.task->label_count(rows);
  // A seed of this step's own: what the step draws for is in the stream.
  const uint64_t step = static_cast<uint64_t>(training.state.step());
  const RandomKey of_step = RandomKey{}.derive(/*a=*/0x64726f70, settings.seed(), step);
  const RandomKey random{of_step.stream, 0};
  const Pass pass{rows, labels > 0 ? 1.0 / static_cast<double>(labels) : 0.0,
                  training.loss_scale ? training.loss_scale->scale() : 1.0, random};
  GradientReducer& gradients = *training.reducer;
  gradients.begin(task.trained, table_use(*training.config, spec, models_language(task.spec)));
  if (training.values) {
    training.values->begin(first_tokens(rank.mesh, rows, settings.micro_batch_size()));
  }
  std::vector<Tensor> losses;  // read at the end: reading waits for the device
  const std::vector<Part> rounds = rounds_of(rank, spec, *task.task, rows.rows);
  if (stop != nullptr) stop->begin();
  for (size_t i = 0; i < rounds.size(); ++i) {
    // Gradients of several micro-batches add up on each rank, unless it may not keep them whole.
    const bool last = i + 1 == rounds.size();
    const bool last_here = last || rounds[i + 1].length == 0;
    if (rounds[i].length > 0 || training.gate) {
      losses.push_back(
          micro_batch(rank, training, task, pass, rounds[i], gradients.every_round() || last_here));
    }
    if (gradients.every_round() || last) {
      training.optimizer->finish_values();  // of a rank without rows
      gradients.flush();
    }
    const int64_t done = static_cast<int64_t>(i) + 1;
    if (stop != nullptr && stop->after(done, std::ssize(rounds))) {
      return leave(training, task, position, done);
    }
  }
  StepResult result;
  {
    const Activity::Phase phase(rank.activity, "gradients");
    gradients.finish();
    if (training.gate) training.gate->close();
    double loss = 0;
    for (const Tensor& each : losses) loss += read_scalar(each);
    agree(rank, gradients, loss, result);
  }
  result.loss *= pass.share;
  result.gradient_norm /= pass.scale;
  result.tokens = rows.rows * (rows.tokens + rows.target_tokens);
  result.applied = std::isfinite(result.loss) && std::isfinite(result.gradient_norm);
  if (training.loss_scale && std::isfinite(result.loss)) {
    result.applied = training.loss_scale->take(result.gradient_norm);
  }
  if (!result.applied) {
    gradients.clear();
    return result;
  }
  const Activity::Phase phase(rank.activity, "optimizer");
  const double clip = clip_factor(result.gradient_norm, settings.gradient_clip());
  training.optimizer->step(gradients, learning_rate, clip / pass.scale);
  return result;
}

}  // namespace weft
