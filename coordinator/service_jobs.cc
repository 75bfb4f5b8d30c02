// Requests that change a job, and the lists of jobs.
#include <algorithm>
#include <charconv>
#include <limits>

#include "coordinator/coordinator_service.h"

namespace weft {

Status wrong_state(const proto::Job& job, const std::string& rule) {
  return Status(Code::kFailedPrecondition, job.id() + " is " + state_name(job.state()))
      .with_field("state")
      .with_value(state_name(job.state()))
      .with_rule(rule);
}

namespace {

bool passes(const JobFilter& filter, const proto::Job& job) {
  if (!filter.states.empty() &&
      std::count(filter.states.begin(), filter.states.end(), job.state()) == 0) {
    return false;
  }
  if (filter.kind != proto::JOB_KIND_UNSPECIFIED && filter.kind != job.kind()) return false;
  if (!filter.name.empty() && filter.name != job.name()) return false;
  return std::all_of(filter.labels.begin(), filter.labels.end(), [&](const auto& label) {
    auto it = job.spec().labels().find(label.first);
    return it != job.spec().labels().end() && it->second == label.second;
  });
}

// A page's place is a sequence of submission, so that it outlives the job that stood there.
Result<int64_t> parse_place(const JobFilter& filter) {
  const std::string& text = filter.after;
  int64_t place = filter.newest_first ? std::numeric_limits<int64_t>::max() : 0;
  if (text.empty()) return place;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), place);
  if (error == std::errc() && end == text.data() + text.size() && place >= 0) return place;
  return fail(Status::invalid("after", text, "must be the `next` of a page of jobs"));
}

Status check_limit(int limit) {
  if (limit >= 1 && limit <= kPageLimitMax) return {};
  return Status::invalid("limit", std::to_string(limit),
                         "must be 1 to " + std::to_string(kPageLimitMax));
}

}  // namespace

Result<proto::Job> CoordinatorService::job(const std::string& id) {
  WEFT_ASSIGN_OR_RETURN(proto::Job job, parts_.store.job(id));
  return parts_.store.show(std::move(job));
}

Result<JobPage> CoordinatorService::jobs(const JobFilter& filter) {
  WEFT_RETURN_IF_ERROR(check_limit(filter.limit));
  std::vector<JobPointer> all = parts_.store.jobs();
  if (filter.newest_first) std::reverse(all.begin(), all.end());
  JobPage page;
  WEFT_ASSIGN_OR_RETURN(const int64_t after, parse_place(filter));
  bool more = false;
  for (const JobPointer& job : all) {
    const bool wanted = passes(filter, *job);
    page.total += wanted ? 1 : 0;
    const int64_t place = job->submit_sequence();
    if (wanted && (filter.newest_first ? place < after : place > after)) {
      if (static_cast<int>(page.jobs.size()) < filter.limit) {
        page.jobs.push_back(parts_.store.show(*job));
      } else {
        more = true;
      }
    }
  }
  if (more) page.next = std::to_string(page.jobs.back().submit_sequence());
  return page;
}

Result<proto::Job> CoordinatorService::cancel(const std::string& id) {
  return parts_.store.edit_job(id, [&](JobEdit& edit) -> Status {
    proto::Job& job = edit.job;
    switch (job.state()) {
      case proto::JOB_STATE_CANCELLED:
      case proto::JOB_STATE_CANCELLING:
        return {};
      case proto::JOB_STATE_SUCCEEDED:
      case proto::JOB_STATE_FAILED:
        return wrong_state(job, "a finished job cannot be cancelled");
      case proto::JOB_STATE_QUEUED:
      case proto::JOB_STATE_PAUSED:
        job.set_state(proto::JOB_STATE_CANCELLED);
        job.set_reason("cancelled by request");
        job.set_finished_ms(parts_.clock.wall_ms());
        edit.event("cancelled", "info", "cancelled before it was started again");
        return {};
      default:
        job.set_state(proto::JOB_STATE_CANCELLING);
        job.set_reason("being cancelled by request");
        edit.event("cancelling", "info", "cancelled by request; its ranks write a checkpoint");
        return {};
    }
  });
}

Result<proto::Job> CoordinatorService::pause(const std::string& id) {
  return parts_.store.edit_job(id, [&](JobEdit& edit) -> Status {
    proto::Job& job = edit.job;
    switch (job.state()) {
      case proto::JOB_STATE_PAUSED:
      case proto::JOB_STATE_PAUSING:
        return {};
      case proto::JOB_STATE_QUEUED:
        job.set_state(proto::JOB_STATE_PAUSED);
        job.set_reason("paused by request");
        edit.event("paused", "info", "paused while it waited");
        return {};
      case proto::JOB_STATE_STARTING:
      case proto::JOB_STATE_RUNNING:
        job.set_state(proto::JOB_STATE_PAUSING);
        job.set_reason("being paused by request");
        edit.event("pausing", "info", "paused by request; its ranks write a checkpoint");
        return {};
      default:
        return wrong_state(job, "only a queued, starting or running job can be paused");
    }
  });
}

Result<proto::Job> CoordinatorService::checkpoint_now(const std::string& id) {
  return parts_.store.edit_job(id, [&](JobEdit& edit) -> Status {
    proto::Job& job = edit.job;
    if (job.state() != proto::JOB_STATE_RUNNING) {
      return wrong_state(job, "only a running job can write a checkpoint");
    }
    job.set_checkpoint_requests(job.checkpoint_requests() + 1);
    edit.event("checkpoint_requested", "info", "asked for a checkpoint; its ranks write one");
    return {};
  });
}

Result<proto::Job> CoordinatorService::set_priority(const std::string& id, int32_t priority) {
  if (priority < -1000 || priority > 1000) {
    return fail(
        Status::invalid("priority", std::to_string(priority), "must be between -1000 and 1000"));
  }
  return parts_.store.edit_job(id, [&](JobEdit& edit) -> Status {
    if (is_finished(edit.job.state())) {
      return wrong_state(edit.job, "the priority of a finished job means nothing");
    }
    if (edit.job.spec().priority() == priority) return {};
    edit.job.mutable_spec()->set_priority(priority);
    edit.event("priority", "info", "priority set to " + std::to_string(priority));
    return {};
  });
}

Status CoordinatorService::remove(const std::string& id) {
  WEFT_ASSIGN_OR_RETURN(const auto ids, parts_.store.checkpoint_ids(id));
  for (const JobPointer& other : parts_.store.jobs()) {
    if (other->id() == id || is_finished(other->state())) continue;
    if (std::count(ids.begin(), ids.end(), other->spec().model().from()) > 0) {
      return Status(Code::kFailedPrecondition,
                    other->id() + " starts from a checkpoint of this job")
          .with_field("id")
          .with_value(id)
          .with_rule("wait until it has finished");
    }
  }
  return parts_.store.remove_job(id);
}

Status CoordinatorService::drain(int seconds) {
  if (seconds < 0 || seconds > 3600) {
    return Status::invalid("seconds", std::to_string(seconds), "must be between 0 and 3600");
  }
  if (parts_.drain == nullptr) return {Code::kFailedPrecondition, "nothing runs jobs here"};
  parts_.drain->begin(seconds);
  return {};
}

}  // namespace weft
