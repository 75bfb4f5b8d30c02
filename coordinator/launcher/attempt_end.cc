#include "coordinator/launcher/attempt_end.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "worker/admission/memory.h"

namespace weft {
namespace {

void finish(JobEdit& edit, proto::JobState state, const std::string& reason, int64_t now_ms) {
  edit.job.set_state(state);
  edit.job.set_reason(reason);
  edit.job.set_finished_ms(now_ms);
  const bool failed = state == proto::JOB_STATE_FAILED;
  edit.event(state_name(state), failed ? "error" : "info", reason);
}

std::string from_where(const proto::Job& job) {
  return job.checkpoint().empty() ? "from the start" : "from " + job.checkpoint();
}

constexpr int kKilled = 128 + 9;  // by SIGKILL

std::string what_ended(const std::vector<proto::AttemptExit>& exits) {
  for (const proto::AttemptExit& exit : exits) {
    if (!exit.message().empty()) return exit.message();
  }
  for (const proto::AttemptExit& exit : exits) {
    if (exit.exit_code() == 0) continue;
    return fmt::format("{} on {} ended with exit code {} and no reason; see its log",
                       exit.head() ? "mpirun" : "orted (Open MPI's daemon)", exit.node(),
                       exit.exit_code());
  }
  return "the ranks ended without saying that training is over";
}

}  // namespace

EndCause cause_of(const std::vector<proto::AttemptExit>& exits) {
  EndCause cause{what_ended(exits)};
  for (const proto::AttemptExit& exit : exits) {
    cause.planned = cause.planned || exit.planned();
    if (!exit.permanent()) continue;
    return {exit.message(), false, false};
  }
  // mpirun ends with the code of the rank that died first.
  const bool killed = !exits.empty() && exits.front().exit_code() == kKilled;
  for (const proto::AttemptExit& exit : exits) {
    if (cause.planned || !killed || !exit.out_of_memory()) continue;
    return {fmt::format(
                "out of memory: {}, when the kernel was ending processes for lack of memory; {}",
                cause.message, kLessMemory),
            false, false};
  }
  return cause;
}

int64_t back_off_ms(const RestartPolicy& policy, int restarts_in_row) {
  const int doublings = std::clamp(restarts_in_row - 1, 0, 40);
  const double seconds = policy.first_seconds * std::pow(2.0, doublings);
  return static_cast<int64_t>(1000 * std::min(seconds, policy.most_seconds));
}

void end_attempt(JobEdit& edit, const EndCause& cause, const RestartPolicy& policy,
                 int64_t now_ms) {
  proto::Job& job = edit.job;
  job.clear_seconds_left();
  job.clear_tokens_per_second();
  const std::string what = fmt::format("attempt {}: {}", job.attempt(), cause.message);
  if (job.state() == proto::JOB_STATE_CANCELLING) {
    if (job.time_limit_reached()) {
      return finish(edit, proto::JOB_STATE_FAILED, "time limit reached; " + what, now_ms);
    }
    return finish(edit, proto::JOB_STATE_CANCELLED, "cancelled by request; " + what, now_ms);
  }
  if (job.state() == proto::JOB_STATE_PAUSING) {
    job.set_state(proto::JOB_STATE_PAUSED);
    job.set_reason("paused by request; " + what + "; goes on " + from_where(job));
    edit.event("paused", "warn", job.reason());
    return;
  }
  if (!cause.retryable) return finish(edit, proto::JOB_STATE_FAILED, what, now_ms);
  if (cause.planned) {
    job.set_state(proto::JOB_STATE_QUEUED);
    job.set_reason("goes on after: " + what);
    edit.event("queued", "info", fmt::format("{}; goes on {}", what, from_where(job)));
    return;
  }
  if (job.restarts() >= job.spec().max_restarts()) {
    return finish(edit, proto::JOB_STATE_FAILED,
                  fmt::format("{}; max_restarts ({}) is used up", what, job.spec().max_restarts()),
                  now_ms);
  }
  const bool lasted = job.state() == proto::JOB_STATE_RUNNING &&
                      now_ms - job.started_ms() >= static_cast<int64_t>(1000 * policy.most_seconds);
  job.set_state(proto::JOB_STATE_QUEUED);
  job.set_restarts(job.restarts() + 1);
  const int64_t wait_ms = back_off_ms(policy, lasted ? 1 : job.restarts());
  job.set_eligible_ms(now_ms + wait_ms);
  job.set_reason("starts again after: " + what);
  auto& event = edit.event(
      "restarted", "warn",
      fmt::format("{}; restart {} of {} in {:.1f} s, {}", what, job.restarts(),
                  job.spec().max_restarts(), static_cast<double>(wait_ms) / 1000, from_where(job)));
  (*event.mutable_data())["restarts"] = std::to_string(job.restarts());
}

}  // namespace weft
