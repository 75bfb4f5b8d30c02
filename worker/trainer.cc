#include "worker/trainer.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cmath>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "kernels/cpu/environment.h"
#include "proto/base/activity.h"
#include "worker/admission/memory.h"
#include "worker/agreement.h"
#include "worker/evaluation.h"
#include "worker/parallel/refusals.h"
#include "worker/setup.h"
#include "worker/smoothed_speed.h"
#include "worker/step.h"
#include "worker/trace_recorder.h"

namespace weft {
namespace {

using SteadyClock = std::chrono::steady_clock;

double seconds_since(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

int64_t wall_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void require(const Status& status) {
  if (!status.ok()) throw StatusError(status);
}

// One attempt's run over its steps. Every member function is a collective.
class Run {
 public:
  Run(Rank& rank, const proto::LaunchRecord& record, Progress& progress, Training& training)
      : rank_(rank),
        spec_(record.spec()),
        attempt_(record.attempt()),
        progress_(progress),
        training_(training),
        writer_(rank, progress),
        tracer_(rank, progress),
        stops_(training.tasks.size(),
               StepStop(rank, [this] { return take_control(); }, clock_, {})),
        evaluation_stop_(rank, [this] { return take_control(); }, clock_, {}) {}

  void run();

 private:
  bool leads() const { return rank_.mesh.index(Axis::kWorld) == 0; }
  proto::TrainerState& state() { return training_.state; }
  void tell(proto::RankEnvelope message);
  void tell_event(const std::string& type, const std::string& text);
  void started();
  bool one_step();
  StatusError not_finite(const StepResult& result);
  void report(const TrainingTask& task, const StepResult& result, double rate, double seconds);
  void add_memory(google::protobuf::Map<std::string, double>& values);
  void send_metrics(std::vector<proto::MetricRecord> records);
  void evaluate();
  using Measured = std::vector<std::map<std::string, double>>;  // by task
  std::optional<Measured> measure();
  bool stopped_early() const;
  void note_loss(double loss);
  bool boundary(bool after_step);
  proto::ControlKind take_control();
  void begin_checkpoint(const std::string& why, int64_t request = 0);
  void finish_checkpoint();
  void commit_checkpoint();
  void finish(const std::string& outcome, const std::string& text);

  Rank& rank_;
  const proto::JobSpec& spec_;
  const int32_t attempt_;
  Progress& progress_;
  Training& training_;
  checkpoint::Writer writer_;
  TraceRecorder tracer_;
  proto::ControlKind leaving_ = proto::CONTROL_KIND_UNSPECIFIED;  // asked for: pause or cancel
  int64_t wanted_ = 0, answered_ = 0;  // newest request for a checkpoint: heard of, written
  int64_t skipped_ = 0;                // while the one before them is still being written
  std::map<std::string, double> results_;
  double loss_ = 0;
  SmoothedSpeed speed_;
  int64_t evaluated_step_ = -1;
  struct {
    int64_t step = -1;
    double loss = 0;
  } validation_;            // the last one, over the tasks
  bool improved_ = false;   // by it; not looked at since
  int64_t told_step_ = -1;  // whose evaluation was told and counted before this run was resumed
  const SystemClock clock_;
  std::vector<StepStop> stops_;  // by task
  StepStop evaluation_stop_;
  SteadyClock::time_point boundary_time_ = SteadyClock::now();
};

void Run::tell(proto::RankEnvelope message) {
  if (leads()) require(progress_.send(std::move(message)));
}

void Run::tell_event(const std::string& type, const std::string& text) {
  proto::RankEnvelope message;
  message.mutable_event()->set_type(type);
  message.mutable_event()->set_level("info");
  message.mutable_event()->set_message(text);
  message.mutable_event()->set_step(state().step());
  tell(std::move(message));
}

void Run::started() {
  proto::RankEnvelope message;
  proto::TrainingStarted* started = message.mutable_started();
  started->set_step(state().step());
  started->set_steps(spec_.training().steps());
  started->set_resume_note(training_.resume_note);
  int64_t parameters = 0;
  for (const Parameter& parameter : training_.optimizer->parameters()) {
    parameters += parameter.info.shape.elements();
  }
  started->set_parameters(parameters);
  rank_.log.info("training from step {} of {}, {} parameters", state().step(),
                 spec_.training().steps(), parameters);
  tell(std::move(message));
}

// False: it was left, as the job is to stop; nothing has changed.
bool Run::one_step() {
  const std::span<const double> credits = training_.mixing->credits();
  std::vector<double> before(credits.begin(), credits.end());
  const auto index = static_cast<size_t>(training_.mixing->next());
  TrainingTask& task = training_.tasks[index];
  const double rate = training_.schedule.rate(state().step());
  if (rank_.activity != nullptr) rank_.activity->set_step(state().step() + 1);
  const Activity::Recorded recorded(rank_.activity, Lane::kCompute, kStepSpan, state().step() + 1);
  const StepResult result = run_step(rank_, spec_, training_, task, rate, &stops_[index]);
  if (result.left_after > 0) {
    training_.mixing->restore(std::move(before));
    tell_event(
        "step_left",
        fmt::format("step {} was left after {} micro-batches, as the rest would take long; it "
                    "is done again when the job goes on",
                    state().step() + 1, result.left_after));
    return false;
  }
  const bool rescaled = training_.loss_scale && !training_.loss_scale->exhausted();
  if (!result.applied && !(rescaled && std::isfinite(result.loss))) throw not_finite(result);
  if (result.applied) ++task.steps;
  state().set_step(state().step() + 1);
  state().set_tokens(state().tokens() + result.tokens);
  loss_ = result.loss;
  results_[task.spec.name() + ".loss"] = result.loss;
  const double seconds = seconds_since(boundary_time_);
  boundary_time_ = SteadyClock::now();
  speed_.add(seconds, 1, result.tokens);
  report(task, result, rate, seconds);
  return true;
}

StatusError Run::not_finite(const StepResult& result) {
  const std::string what = std::isfinite(result.loss) ? "the gradient" : "the loss";
  const std::string where =
      result.culprit ? " on rank " + std::to_string(*result.culprit) : " as the sum over the ranks";
  const bool clips = spec_.training().gradient_clip() > 0;  // as it does by default
  const std::string remedy =
      state().step() == 0
          ? "nor before, so look at the model's weights and configuration, and training.precision"
          : fmt::format("lower training.optimizer.learning_rate or {}training.gradient_clip",
                        clips ? "" : "set ");
  return StatusError(
      Status(Code::kInvalidArgument,
             fmt::format("{} is no longer finite at step {}{}; no weight was changed by it{} {}",
                         what, state().step() + 1, where, state().step() == 0 ? "" : ";", remedy)));
}

void Run::report(const TrainingTask& task, const StepResult& result, double rate, double seconds) {
  const int64_t every = std::max(1, spec_.training().log_every());
  const int64_t step = state().step();
  if (step % every != 0 && step != spec_.training().steps()) return;
  proto::MetricRecord record;
  record.set_task(task.spec.name());
  auto& values = *record.mutable_values();
  values["loss"] = result.loss;
  values["learning_rate"] = rate;
  if (std::isfinite(result.gradient_norm)) values["gradient_norm"] = result.gradient_norm;
  if (training_.loss_scale) values["loss_scale"] = training_.loss_scale->scale();
  add_memory(values);
  values["tokens_per_second"] = static_cast<double>(result.tokens) / std::max(seconds, 1e-9);
  rank_.log.info("step {} {} loss {:.6f}", step, task.spec.name(), result.loss);
  send_metrics({std::move(record)});
}

// The largest of each over the ranks, since the record before. A collective.
void Run::add_memory(google::protobuf::Map<std::string, double>& values) {
  const AllocatorStats stats = rank_.allocator->stats();
  const std::array<double, 3> mine = {static_cast<double>(stats.peak_bytes),
                                      static_cast<double>(stats.reserved_bytes),
                                      stats.fragmentation};
  rank_.allocator->reset_peak();
  Tensor most = Tensor::from<double>(*rank_.allocator, {3}, mine);
  rank_.mesh.axis(Axis::kWorld).all_reduce(most, ReduceOp::kMax);
  const std::vector<double> all = most.to_vector<double>();
  values["memory_peak_bytes"] = all[0];
  values["memory_reserved_bytes"] = all[1];
  values["memory_fragmentation"] = all[2];
}

// Records of the step that was just done, in one message.
void Run::send_metrics(std::vector<proto::MetricRecord> records) {
  proto::RankEnvelope message;
  message.mutable_metrics()->set_seconds_left(
      speed_.seconds_for(spec_.training().steps() - state().step()));
  message.mutable_metrics()->set_tokens_per_second(speed_.tokens_per_second());
  for (proto::MetricRecord& record : records) {
    record.set_step(state().step());
    record.set_time_ms(wall_ms());
    record.set_attempt(attempt_);
    message.mutable_metrics()->add_records()->Swap(&record);
  }
  tell(std::move(message));
}

// The weighted mean of the validation losses, which improves where it is lower than the best before
// by min_delta.
void Run::note_loss(double loss) {
  const double bound = state().best_validation_loss() - spec_.training().early_stop().min_delta();
  const bool better = std::isfinite(loss) && !(state().has_best() && loss >= bound);
  if (better) {
    improved_ = true;
    state().set_best_validation_loss(loss);
    state().set_has_best(true);
    state().set_evaluations_without_improvement(0);
  } else {
    state().set_evaluations_without_improvement(state().evaluations_without_improvement() + 1);
  }
}

bool Run::stopped_early() const {
  const int32_t patience = spec_.training().early_stop().patience();
  return patience > 0 && training_.state.evaluations_without_improvement() >= patience;
}

// Nothing where it was left, as the job is to stop; nothing of a task without validation data.
std::optional<Run::Measured> Run::measure() {
  int64_t rounds = 0, done = 0;
  for (const TrainingTask& task : training_.tasks) rounds += evaluation_rounds(rank_, spec_, task);
  const auto leaves = [&] { return evaluation_stop_.after(++done, rounds); };
  evaluation_stop_.begin();
  Measured all(training_.tasks.size());
  for (size_t i = 0; i < all.size(); ++i) {
    TrainingTask& task = training_.tasks[i];
    if (task.feed.validation_rows() == 0) continue;
    auto measured = evaluate_task(rank_, spec_, training_, task, leaves);
    if (!measured) {
      tell_event("evaluation_left",
                 fmt::format("the evaluation after step {} was left after {} of {} micro-batches, "
                             "as the rest would take long; it is done again when the job goes on",
                             state().step(), done, rounds));
      return std::nullopt;
    }
    all[i] = *std::move(measured);
  }
  return all;
}

// Of a step whose evaluation was told before, only the results are wanted.
void Run::evaluate() {
  if (evaluated_step_ == state().step()) return;
  const Activity::Phase phase(rank_.activity, "evaluation");
  const auto measured = measure();
  speed_.add(seconds_since(boundary_time_), 0, 0);
  boundary_time_ = SteadyClock::now();
  state().set_evaluation_left(!measured);
  if (!measured) return;
  evaluated_step_ = state().step();
  double loss = 0, weights = 0;
  std::vector<proto::MetricRecord> records;
  for (size_t i = 0; i < measured->size(); ++i) {
    const std::map<std::string, double>& values = (*measured)[i];
    if (values.empty()) continue;
    const proto::TaskSpec& task = training_.tasks[i].spec;
    proto::MetricRecord record;
    record.set_task(task.name());
    for (const auto& [name, value] : values) {
      const std::string told = "validation_" + name;
      results_.erase(task.name() + "." + told);
      if (!std::isfinite(value)) continue;  // as a perplexity of a loss beyond 709: JSON has none
      (*record.mutable_values())[told] = value;
      results_[task.name() + "." + told] = value;
    }
    rank_.log.info("step {} {} validation loss {:.6f}", state().step(), task.name(),
                   values.at("loss"));
    loss += task.weight() * values.at("loss");
    weights += task.weight();
    records.push_back(std::move(record));
  }
  if (records.empty()) return;
  validation_ = {state().step(), loss / weights};
  if (told_step_ == state().step()) return;
  send_metrics(std::move(records));
  note_loss(loss / weights);
}

void Run::begin_checkpoint(const std::string& why, int64_t request) {
  if (!writer_.idle()) finish_checkpoint();
  const Activity::Phase phase(rank_.activity, "checkpoint");
  proto::TrainerState& now = state();
  now.clear_positions();
  now.clear_mixing_credit();
  for (const TrainingTask& task : training_.tasks) {
    proto::DataPosition position = task.feed.position();
    position.set_task(task.spec.name());
    position.set_steps(task.steps);
    now.add_positions()->Swap(&position);
  }
  for (double credit : training_.mixing->credits()) now.add_mixing_credit(credit);
  if (training_.loss_scale) {
    now.set_loss_scale(training_.loss_scale->scale());
    now.set_loss_scale_steps(training_.loss_scale->finite_steps());
  }
  proto::CheckpointManifest manifest = training_.manifest;
  *manifest.mutable_state() = now;
  manifest.set_loss(loss_);
  if (validation_.step == now.step() && std::isfinite(validation_.loss)) {
    manifest.set_validation_loss(validation_.loss);
  }
  manifest.set_why(why);
  manifest.set_request(request);
  manifest.set_created_ms(wall_ms());
  writer_.begin(std::move(manifest), training_.unstored_tensors(), training_.file_chunks);
}

void Run::finish_checkpoint() {
  {
    const Activity::Phase phase(rank_.activity, kStoringPhase);
    writer_.wait();
  }
  commit_checkpoint();
}

void Run::commit_checkpoint() {
  const std::vector<proto::TensorEntry> entries = writer_.commit();
  training_.file_chunks = {};  // the next one refers to them, and to what is frozen
  training_.keep_frozen(entries);
  if (const int64_t count = std::exchange(skipped_, 0); count > 0) {
    tell_event("checkpoint_resumed",
               "stored; checkpoints left out meanwhile: " + std::to_string(count));
  }
}

// Every rank hears of a request, at different times, and perhaps more than once. Leaving is done
// once; a mere checkpoint is taken on rank 0's word only, or each rank would ask for one.
proto::ControlKind Run::take_control() {
  while (const auto control = progress_.take_control()) {
    if (control->kind() == proto::CONTROL_KIND_CHECKPOINT) {
      if (leads()) wanted_ = std::max(wanted_, control->request());
    } else {
      leaving_ = std::max(leaving_, control->kind());
    }
  }
  if (leaving_ != proto::CONTROL_KIND_UNSPECIFIED) return leaving_;
  return wanted_ > answered_ ? proto::CONTROL_KIND_CHECKPOINT : proto::CONTROL_KIND_UNSPECIFIED;
}

constexpr int kLooksForBest = 600;  // of 50 ms

bool leaves(const Boundary& agreed) { return agreed.control >= proto::CONTROL_KIND_PAUSE; }

// What follows a step; true: leave (pause or cancel).
bool Run::boundary(bool after_step) {
  const Activity::Phase phase(rank_.activity, "boundary");
  const auto look = [&] {
    Boundary mine;
    mine.control = take_control();
    mine.writing = !writer_.idle() && !writer_.written();
    mine.stalled = mine.writing && writer_.stalled();
    mine.trace = tracer_.wish();
    return agree(rank_, mine);
  };
  Boundary agreed = look();
  const bool last = state().step() >= spec_.training().steps() || stopped_early();
  const bool best = spec_.checkpoint().keep_best() && std::exchange(improved_, false) && !last;
  // These weights do not come again, so the checkpoint before is waited for, but not for its room.
  const auto waits = [&] { return best && agreed.writing && !agreed.stalled && !leaves(agreed); };
  for (int i = 0; waits() && i < kLooksForBest; ++i) {
    const Activity::Phase storing(rank_.activity, kStoringPhase);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    agreed = look();
  }
  tracer_.boundary(agreed.trace, state().step());
  if (!writer_.idle() && !agreed.writing) commit_checkpoint();
  if (leaves(agreed)) {
    const bool pause = agreed.control == proto::CONTROL_KIND_PAUSE;
    begin_checkpoint(pause ? "pause" : "cancel");
    finish_checkpoint();
    finish(pause ? "paused" : "cancelled", "");
    return true;
  }
  const int64_t every = spec_.checkpoint().every_steps();
  const bool asked = agreed.control == proto::CONTROL_KIND_CHECKPOINT;
  const bool due = every > 0 && state().step() % every == 0;
  if (((due && after_step) || asked || best) && !last) {
    // A checkpoint that still waits for room is not waited for: the next one takes its turn, and
    // one that was asked for is written as soon as there is room.
    if (!agreed.writing) {
      begin_checkpoint(asked ? "request" : best ? "best" : "interval", wanted_);
      answered_ = wanted_;
    } else if (((due && after_step) || best) && skipped_++ == 0) {
      tell_event("checkpoint_skipped",
                 "left out, as are those that follow: the one before is still being stored");
    }
  }
  return false;
}

void Run::finish(const std::string& outcome, const std::string& text) {
  tracer_.finish(state().step());
  training_.optimizer->finish_values();  // nothing is on its way when the ranks part
  proto::RankEnvelope message;
  proto::TrainingFinished* finished = message.mutable_finished();
  finished->set_outcome(outcome);
  finished->set_step(state().step());
  finished->set_message(text);
  for (const auto& [name, value] : results_) (*finished->mutable_results())[name] = value;
  tell(std::move(message));
  const Activity::Phase phase(rank_.activity, kStoringPhase);
  require(progress_.flush());
}

void Run::run() {
  started();
  if (boundary(false)) return;
  boundary_time_ = SteadyClock::now();
  const int64_t every = spec_.training().evaluate_every();
  const bool behind_one = every > 0 && state().step() > 0 && state().step() % every == 0;
  if (state().evaluation_left()) {
    evaluate();
    if (boundary(false)) return;
  } else if (behind_one) {
    told_step_ = state().step();
  }
  while (state().step() < spec_.training().steps() && !stopped_early()) {
    const bool done = one_step();
    if (done && every > 0 && state().step() % every == 0) evaluate();
    if (boundary(done)) return;
  }
  evaluate();
  if (state().evaluation_left() && boundary(false)) return;
  begin_checkpoint("end");
  finish_checkpoint();
  const bool early = state().step() < spec_.training().steps();
  finish("succeeded", early ? "stopped early: the validation loss no longer improved" : "");
}

}  // namespace

// A rank waits for full disks and peers by itself: what it lacks for good is memory.
Status out_of_memory(Status failure, const proto::LaunchRecord& record, int rank) {
  constexpr std::string_view kBegins = "out of memory: ";
  if (failure.code() != Code::kResourceExhausted || failure.message().starts_with(kBegins)) {
    return failure;
  }
  const int64_t allowed = rank < record.ranks_size() ? record.ranks(rank).memory_bytes() : 0;
  const std::string bound =
      allowed > 0 ? fmt::format("; it may take {} bytes, its share of the node", allowed) : "";
  return {Code::kResourceExhausted,
          fmt::format("{}{}{}; {}", kBegins, failure.message(), bound, kLessMemory)};
}

Status run_training(Rank& rank, const proto::LaunchRecord& record, Progress& progress) {
  try {
    tell_refusals([&] {
      cpu::read_environment();
      std::optional<Activity::Phase> phase(std::in_place, rank.activity, "loading");
      auto training = set_up(rank, record, progress);
      if (!training) throw StatusError(std::move(training).error());
      phase.reset();
      Run(rank, record, progress, **training).run();
    });
    return {};
  } catch (const StatusError& error) {
    return out_of_memory(error.status(), record, rank.mesh.index(Axis::kWorld));
  }
}

}  // namespace weft
