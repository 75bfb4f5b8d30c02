#include "coordinator/launcher/rank_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "coordinator/launcher/launch_record.h"
#include "proto/base/hash.h"

namespace weft {
namespace {

std::string shortened(const std::string& text, size_t most) {
  return text.size() <= most ? text : text.substr(0, most) + " ...";
}

Status on_hello(JobEdit& edit, const proto::RankEnvelope& envelope) {
  const proto::RankHello& hello = envelope.hello();
  int32_t slot = 0;
  const std::string node = node_of_rank(edit.job.placement(), envelope.rank(), &slot);
  proto::RankInfo info;
  info.set_rank(envelope.rank());
  info.set_node(node);
  info.set_slot(slot);
  info.set_pid(hello.pid());
  info.set_data(hello.data());
  info.set_sequence(hello.sequence());
  info.set_tensor(hello.tensor());
  auto& ranks = *edit.job.mutable_ranks();
  auto it = std::lower_bound(ranks.begin(), ranks.end(), envelope.rank(),
                             [](const auto& a, int32_t rank) { return a.rank() < rank; });
  if (it != ranks.end() && it->rank() == envelope.rank()) {
    *it = info;
  } else {
    *ranks.Add() = info;
    std::sort(ranks.begin(), ranks.end(),
              [](const auto& a, const auto& b) { return a.rank() < b.rank(); });
  }
  return {};
}

Status on_started(JobEdit& edit, const proto::TrainingStarted& started) {
  proto::Job& job = edit.job;
  if (job.state() == proto::JOB_STATE_STARTING) {
    job.set_state(proto::JOB_STATE_RUNNING);
    job.set_reason("");
  }
  job.set_step(started.step());
  if (started.steps() > 0) job.set_steps(started.steps());
  job.set_resume_note(started.resume_note());
  auto& event =
      edit.event("running", "info",
                 fmt::format("training from step {} of {}, {} parameters{}{}", started.step(),
                             job.steps(), started.parameters(),
                             started.resume_note().empty() ? "" : "; ", started.resume_note()));
  (*event.mutable_data())["parameters"] = std::to_string(started.parameters());
  return {};
}

double weight_of(const proto::Job& job, const std::string& task) {
  const auto& tasks = job.spec().tasks();
  const auto it = std::find_if(tasks.begin(), tasks.end(),
                               [&](const proto::TaskSpec& spec) { return spec.name() == task; });
  return it == tasks.end() ? 0 : it->weight();
}

// An evaluation of several tasks is in one message, which may hold that of a later step, too. The
// job's loss is the mean of the last one's by the tasks' weights, which early stopping goes by.
Status on_metrics(JobEdit& edit, const proto::MetricBatch& batch) {
  proto::Job& job = edit.job;
  double validation = 0, weights = 0;
  int64_t evaluated = 0;  // the step of those
  for (const proto::MetricRecord& record : batch.records()) {
    edit.metrics.push_back(record);
    job.set_step(record.step());
    const auto value = [&](const char* name) {
      auto it = record.values().find(name);
      return it == record.values().end() ? nullptr : &it->second;
    };
    if (const double* loss = value("loss")) job.set_loss(*loss);
    if (const double* held_out = value("validation_loss")) {
      if (record.step() != evaluated) validation = weights = 0;
      evaluated = record.step();
      const double weight = weight_of(job, record.task());
      validation += weight * *held_out;
      weights += weight;
      auto& event = edit.event("evaluated", "info",
                               fmt::format("{}: validation loss {:.6g} at step {}", record.task(),
                                           *held_out, record.step()));
      event.set_step(record.step());
      (*event.mutable_data())["validation_loss"] = fmt::format("{:.9g}", *held_out);
    }
  }
  if (weights > 0) job.set_validation_loss(validation / weights);
  if (batch.tokens_per_second() > 0) job.set_tokens_per_second(batch.tokens_per_second());
  if (batch.seconds_left() > 0) job.set_seconds_left(batch.seconds_left());
  return {};
}

// Keeps the newest `keep_last`, the best one, and what an unfinished job starts from.
Status drop_old_checkpoints(const RankWorld& world, JobEdit& edit) {
  const int keep = edit.job.spec().checkpoint().keep_last();
  if (keep <= 0) return {};
  WEFT_ASSIGN_OR_RETURN(const auto ids, world.store.checkpoint_ids(edit.job.id()));
  const auto jobs = world.store.jobs();
  const int excess = static_cast<int>(ids.size()) + 1 - keep;  // the new one counts
  for (int i = 0; i < excess && i < static_cast<int>(ids.size()); ++i) {
    const std::string& id = ids[static_cast<size_t>(i)];
    const bool used = std::any_of(jobs.begin(), jobs.end(), [&](const JobPointer& job) {
      return !is_finished(job->state()) && job->spec().model().from() == id;
    });
    if (!used && id != edit.job.best_checkpoint()) edit.removed_checkpoints.push_back(id);
  }
  return {};
}

Status note_best(const RankWorld& world, proto::Job& job, const proto::CheckpointManifest& now) {
  if (!job.spec().checkpoint().keep_best() || !now.has_validation_loss() ||
      !std::isfinite(now.validation_loss())) {
    return {};
  }
  const auto best = world.store.checkpoint(job.best_checkpoint());
  if (!best && best.error().code() != Code::kNotFound) return best.error();
  if (!best || now.validation_loss() < best->validation_loss()) job.set_best_checkpoint(now.id());
  return {};
}

Status on_checkpoint(const RankWorld& world, JobEdit& edit, const proto::CheckpointCommit& commit,
                     const std::string& id) {
  proto::Job& job = edit.job;
  proto::CheckpointManifest& manifest = edit.checkpoints.emplace_back(commit.manifest());
  manifest.set_id(id);
  manifest.set_job(job.id());
  manifest.set_attempt(job.attempt());
  // Readers take checkpoints in the order of this time: it goes on also where the clock goes back.
  const auto newest = world.store.checkpoint(job.checkpoint());
  manifest.set_created_ms(
      std::max(world.clock.wall_ms(), newest ? newest->created_ms() + 1 : int64_t{0}));
  manifest.set_why(commit.why());
  int64_t bytes = 0;
  for (const auto& tensor : manifest.tensors()) {
    for (const auto& tile : tensor.tiles()) {
      for (const auto& chunk : tile.chunks()) bytes += chunk.size();
    }
  }
  manifest.set_bytes(bytes);
  const int64_t step = manifest.state().step();
  if (step > (newest ? newest->state().step() : 0)) job.set_restarts(0);
  job.set_checkpoint(id);
  WEFT_RETURN_IF_ERROR(note_best(world, job, manifest));
  WEFT_RETURN_IF_ERROR(drop_old_checkpoints(world, edit));
  // The last one of an attempt answers whatever was asked for.
  const bool in_passing =
      commit.why() == "interval" || commit.why() == "best" || commit.why() == "request";
  const int64_t answered = in_passing ? manifest.request() : job.checkpoint_requests();
  job.set_checkpoint_requests_answered(
      std::clamp(answered, job.checkpoint_requests_answered(), job.checkpoint_requests()));
  auto& event =
      edit.event("checkpoint", "info", fmt::format("{} of step {}, {} bytes", id, step, bytes));
  event.set_step(step);
  (*event.mutable_data())["id"] = id;
  (*event.mutable_data())["why"] = commit.why();
  return {};
}

Status on_finished(JobEdit& edit, const proto::TrainingFinished& finished, int64_t now_ms) {
  proto::Job& job = edit.job;
  job.set_step(finished.step());
  job.clear_seconds_left();
  job.clear_tokens_per_second();
  for (const auto& [name, value] : finished.results()) (*job.mutable_results())[name] = value;
  const std::string& outcome = finished.outcome();
  proto::JobState state = proto::JOB_STATE_FAILED;
  std::string reason = finished.message();
  if (outcome == "succeeded") state = proto::JOB_STATE_SUCCEEDED;
  if (outcome == "paused" && job.state() == proto::JOB_STATE_PAUSING) {
    state = proto::JOB_STATE_PAUSED;
    reason = "paused by request";
  } else if (outcome == "paused" && job.state() != proto::JOB_STATE_CANCELLING) {
    state = proto::JOB_STATE_QUEUED;
    reason = "stopped in " + job.checkpoint() + " while the cluster came to rest, goes on from it";
  } else if (outcome == "paused" || outcome == "cancelled") {
    state = job.time_limit_reached() ? proto::JOB_STATE_FAILED : proto::JOB_STATE_CANCELLED;
    reason = job.time_limit_reached() ? fmt::format("time limit of {} s reached",
                                                    job.spec().resources().time_limit_seconds())
                                      : "cancelled by request";
  }
  job.set_state(state);
  job.set_reason(reason);
  if (is_finished(state)) job.set_finished_ms(now_ms);
  edit.event(state_name(state), state == proto::JOB_STATE_FAILED ? "error" : "info",
             fmt::format("{} at step {} of {}{}{}", state_name(state), finished.step(), job.steps(),
                         reason.empty() ? "" : ": ", reason));
  return {};
}

Status on_failed(const RankWorld& world, JobEdit& edit, const proto::RankEnvelope& envelope) {
  const proto::RankFailed& failed = envelope.failed();
  const std::string message =
      fmt::format("rank {} reports: {}", envelope.rank(), shortened(failed.message(), 4000));
  edit.event("rank_failed", "error", message);
  end_attempt(edit, {message, failed.retryable()}, world.policy, world.clock.wall_ms());
  return {};
}

Status edit_for(const RankWorld& world, const proto::RankEnvelope& envelope, JobEdit& edit,
                const std::string& checkpoint_id) {
  switch (envelope.body_case()) {
    case proto::RankEnvelope::kHello:
      return on_hello(edit, envelope);
    case proto::RankEnvelope::kStarted:
      return on_started(edit, envelope.started());
    case proto::RankEnvelope::kMetrics:
      return on_metrics(edit, envelope.metrics());
    case proto::RankEnvelope::kCheckpoint:
      return on_checkpoint(world, edit, envelope.checkpoint(), checkpoint_id);
    case proto::RankEnvelope::kFinished:
      return on_finished(edit, envelope.finished(), world.clock.wall_ms());
    case proto::RankEnvelope::kFailed:
      return on_failed(world, edit, envelope);
    case proto::RankEnvelope::kEvent: {
      const proto::RankEvent& told = envelope.event();
      auto& event = edit.event(shortened(told.type(), 64), shortened(told.level(), 16),
                               shortened(told.message(), 4000));
      event.set_step(told.step());
      return {};
    }
    default:
      return {Code::kInvalidArgument, "a rank's message without a known body"};
  }
}

bool worth_retrying(Code code) {
  return code == Code::kResourceExhausted || code == Code::kUnavailable || code == Code::kInternal;
}

}  // namespace

RankAnswer apply_rank_message(const RankWorld& world, const proto::RankEnvelope& envelope) {
  const RankPosition position{envelope.attempt(), envelope.rank(), envelope.sequence()};
  const std::string checkpoint_id = "ckpt-" + random_hex(8);
  const auto apply = [&](const JobEditor& editor) {
    return world.store.apply_rank(envelope.job(), position, editor);
  };
  const JobEditor editor = [&](JobEdit& edit) -> Status {
    if (node_of_rank(edit.job.placement(), envelope.rank()).empty()) {
      return Status::invalid("rank", std::to_string(envelope.rank()), "is not in the placement");
    }
    return edit_for(world, envelope, edit, checkpoint_id);
  };
  Status status;
  if (envelope.has_checkpoint()) {
    status = world.content.commit({envelope.job(), envelope.attempt()},
                                  chunks_of(envelope.checkpoint().manifest()),
                                  [&] { return apply(editor); });
  } else if (const auto applied = apply(editor); !applied) {
    status = applied.error();
  }
  RankAnswer answer;
  answer.reply.set_sequence(envelope.sequence());
  if (status.ok()) {
    if (envelope.has_checkpoint()) answer.reply.set_message(checkpoint_id);
    return answer;
  }
  if (status.code() == Code::kFailedPrecondition && status.field() == "sequence") {
    answer.kind = RankAnswer::Kind::kDrop;
    return answer;
  }
  if (worth_retrying(status.code())) {
    answer.kind = RankAnswer::Kind::kRetry;
    return answer;
  }
  if (status.code() == Code::kNotFound) status = Status(Code::kStale, status.message());
  if (status.code() != Code::kStale && envelope.sequence() > 0) {
    // Refused for good: the number is used up, and people see why.
    const auto consumed = apply([&](JobEdit& edit) {
      edit.event("refused", "error", "a rank's message was refused: " + status.to_string());
      return Status();
    });
    // It came before, and what it refers to may have left since.
    if (consumed && !*consumed) return answer;
    if (!consumed) {
      const Status why = consumed.error();
      if (worth_retrying(why.code())) answer.kind = RankAnswer::Kind::kRetry;
      if (why.code() == Code::kStale) status = why;
    }
  }
  answer.reply.set_code(std::string(code_name(status.code())));
  answer.reply.set_message(status.to_string());
  return answer;
}

}  // namespace weft
