// What a job's ranks do now, and traces of its steps.
#include <fmt/format.h>

#include "cluster/process/rank_now.h"
#include "coordinator/coordinator_service.h"
#include "coordinator/launcher/launch_record.h"
#include "coordinator/launcher/trace_summary.h"

namespace weft {
namespace {

constexpr double kStackSeconds = 3;
constexpr double kSilentSeconds = 5;

Status no_ranks(const proto::Job& job, const std::string& rule) {
  return Status(Code::kFailedPrecondition, job.id() + " is " + state_name(job.state()))
      .with_field("state")
      .with_value(state_name(job.state()))
      .with_rule(rule);
}

// "rank 3 of n2: its process is stopped": of a rank that a trace has no part of.
std::string last_word(const proto::RankNow& now) {
  if (is_halted(now)) return "its process is " + now.process();
  if (now.age_seconds() > kSilentSeconds) {
    return fmt::format("nothing was heard of it for {:.0f} s", now.age_seconds());
  }
  return describe(now);
}

void add_missing(const Inspector::Trace& found, const proto::Job& job, proto::JobTrace& trace) {
  for (int rank = 0; rank < static_cast<int>(found.ranks); ++rank) {
    const auto part = found.parts.find(rank);
    if (part != found.parts.end() && !part->second.cut()) continue;
    const auto heard = found.heard.find(rank);
    const bool known = heard != found.heard.end();
    proto::MissingRank& missing = *trace.add_missing();
    missing.set_rank(rank);
    missing.set_node(node_of_rank(job.placement(), rank));
    missing.set_problem(known ? last_word(heard->second) : "nothing was heard of it yet");
  }
}

std::string problem_of(const Inspector::Trace& found, bool ended) {
  if (ended) return fmt::format("attempt {} ended before it was complete", found.attempt);
  if (found.ended) {
    return fmt::format("it was ended early; {} of {} ranks have sent what they had",
                       found.parts.size(), found.ranks);
  }
  return fmt::format("only {} of {} ranks have sent their part within {} s", found.parts.size(),
                     found.ranks, Inspector::kPartSeconds);
}

Status no_inspector() {
  return {Code::kFailedPrecondition, "this service starts no ranks, so there are none to look at"};
}

}  // namespace

Result<proto::JobStack> CoordinatorService::stack(const std::string& id) {
  if (parts_.inspector == nullptr) return fail(no_inspector());
  WEFT_ASSIGN_OR_RETURN(const proto::Job job, parts_.store.job(id));
  if (!is_active(job.state())) {
    return fail(no_ranks(job, "must be running, or about to; 'weft logs' tells of earlier ranks"));
  }
  proto::JobStack stack;
  stack.set_job(id);
  stack.set_attempt(job.attempt());
  stack.set_state(job.state());
  for (proto::RankStack& rank : parts_.inspector->stacks(job, kStackSeconds)) {
    stack.add_ranks()->Swap(&rank);
  }
  return stack;
}

Result<proto::JobTrace> CoordinatorService::start_trace(const std::string& id, int steps) {
  if (parts_.inspector == nullptr) return fail(no_inspector());
  if (steps < 1 || steps > kTraceStepsMax) {
    return fail(Status::invalid("steps", std::to_string(steps),
                                fmt::format("must be 1 to {}", kTraceStepsMax)));
  }
  WEFT_ASSIGN_OR_RETURN(const proto::Job job, parts_.store.job(id));
  if (job.state() != proto::JOB_STATE_RUNNING) {
    return fail(no_ranks(job, "must be running: its next steps are what is recorded"));
  }
  const Result<proto::JobTrace> before = trace(id);
  if (before && before->state() == "recording") {
    return fail(Status(Code::kFailedPrecondition, "a trace of " + id + " is being recorded")
                    .with_rule("wait until it is complete, or end it: Ctrl-C of the 'weft trace' "
                               "that records it, or DELETE /api/v1/jobs/" +
                               id + "/trace"));
  }
  parts_.inspector->start_trace(job, steps);
  return trace(id);
}

Result<proto::JobTrace> CoordinatorService::trace(const std::string& id) {
  if (parts_.inspector == nullptr) return fail(no_inspector());
  WEFT_ASSIGN_OR_RETURN(const proto::Job job, parts_.store.job(id));
  const auto found = parts_.inspector->trace(id);
  if (!found) {
    return fail(Code::kNotFound, "there is no trace of " + id + "; 'weft trace' records one");
  }
  proto::JobTrace trace;
  trace.set_job(id);
  trace.set_attempt(found->attempt);
  trace.set_steps(found->steps);
  for (const auto& [rank, part] : found->parts) {
    trace.set_first_step(part.first_step());
    trace.set_steps(part.steps());
    *trace.add_ranks() = summary_of(part);
  }
  add_missing(*found, job, trace);
  trace.set_quiet_seconds(found->quiet_seconds);
  const bool ended = job.attempt() != found->attempt || !is_active(job.state());
  const bool all = found->complete() && !found->cut();
  if (found->too_large) {
    trace.set_problem(fmt::format("it is larger than {} MiB; record fewer steps",
                                  Inspector::kTraceBytesMax >> 20));
  } else if (!all && (ended || found->over)) {
    trace.set_problem(problem_of(*found, ended));
  }
  trace.set_state(all                       ? "complete"
                  : trace.problem().empty() ? "recording"
                  : found->parts.empty()    ? "failed"
                                            : "incomplete");
  return trace;
}

Result<proto::JobTrace> CoordinatorService::end_trace(const std::string& id) {
  WEFT_ASSIGN_OR_RETURN(const proto::JobTrace now, trace(id));
  if (now.state() != "recording") return now;
  WEFT_ASSIGN_OR_RETURN(const proto::Job job, parts_.store.job(id));
  parts_.inspector->end_trace(job);
  return trace(id);
}

Result<std::vector<proto::RankTrace>> CoordinatorService::trace_parts(const std::string& id) {
  WEFT_ASSIGN_OR_RETURN(const proto::JobTrace state, trace(id));
  if (state.state() != "complete" && state.state() != "incomplete") {
    return fail(Status(Code::kFailedPrecondition, "the trace of " + id + " is not there")
                    .with_field("state")
                    .with_value(state.state())
                    .with_rule(state.problem().empty() ? "must be complete: ask again later"
                                                       : state.problem()));
  }
  std::vector<proto::RankTrace> parts;
  auto found = parts_.inspector->trace(id);
  for (auto& [rank, part] : found->parts) parts.push_back(std::move(part));
  return parts;
}

}  // namespace weft
