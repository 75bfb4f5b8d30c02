// A job that goes on, on its own mesh or on another one.
#include <fmt/format.h>

#include <algorithm>

#include "coordinator/coordinator_service.h"
#include "worker/admission/mesh_text.h"

namespace weft {
namespace {

// Of topology-invariant training the rows at once are part of the arithmetic, so they stay.
int64_t rows_at_once(const proto::JobSpec& spec) {
  if (spec.training().reproducible() != proto::REPRODUCIBLE_TOPOLOGY) return 0;
  return int64_t{spec.training().micro_batch_size()} * spec.parallel().data();
}

// Rows that a rank computes at once on the new mesh: no more than before, where nothing asks for
// it.
Status fit_micro_batch(proto::JobSpec& spec, int64_t at_once) {
  proto::TrainingSpec& training = *spec.mutable_training();
  const int64_t data = spec.parallel().has_data() ? spec.parallel().data() : 1;
  if (data < 1) return {};  // refused with the other rules
  if (at_once > 0 && at_once % data != 0) {
    return Status::invalid(
        "parallel.data", std::to_string(data),
        fmt::format("must divide the rows at once, training.micro_batch_size x parallel.data = {}, "
                    "which training.reproducible: topology keeps",
                    at_once));
  }
  const int64_t rows = (training.batch_size() + data - 1) / data;
  const int64_t size =
      at_once > 0 ? at_once / data : std::min<int64_t>(training.micro_batch_size(), rows);
  training.set_micro_batch_size(static_cast<int32_t>(size));
  return {};
}

// The job's file as if it had said so from the start.
Result<proto::JobSpec> with_change(const proto::JobSpec& before,
                                   const proto::ResumeRequest& change) {
  proto::JobSpec spec = before;
  if (change.has_resources()) {
    *spec.mutable_resources() = change.resources();
  } else {
    spec.mutable_resources()->clear_slots();
  }
  if (!change.has_parallel()) return spec;
  *spec.mutable_parallel() = change.parallel();
  if (spec.parallel().mode() == proto::PARALLEL_MODE_AUTO) {
    spec.mutable_training()->clear_micro_batch_size();
    spec.mutable_training()->clear_activation_checkpointing();
    return spec;
  }
  WEFT_RETURN_IF_ERROR(fit_micro_batch(spec, rows_at_once(before)));
  return spec;
}

bool same_run(const proto::JobSpec& a, const proto::JobSpec& b) {
  const auto bytes = [](const google::protobuf::Message& part) { return part.SerializeAsString(); };
  return bytes(a.parallel()) == bytes(b.parallel()) && bytes(a.training()) == bytes(b.training()) &&
         bytes(a.resources()) == bytes(b.resources());
}

void queue_again(proto::Job& job) {
  job.set_state(proto::JOB_STATE_QUEUED);
  job.set_reason("resumed, waits to be placed");
  job.set_restarts(0);
  job.set_eligible_ms(0);
  job.set_finished_ms(0);
  job.set_time_limit_reached(false);
}

std::string from_where(const proto::Job& job) {
  return job.checkpoint().empty() ? "from the start" : "from " + job.checkpoint();
}

// What can be done about a job that cannot be resumed.
std::string what_else(const proto::Job& job) {
  if (job.state() == proto::JOB_STATE_PAUSING) return "; wait until it is paused";
  const bool ended = job.state() != proto::JOB_STATE_CANCELLING && !job.checkpoint().empty();
  return ended ? "; a new job goes on from its weights with model.from: " + job.checkpoint() : "";
}

}  // namespace

Result<proto::Job> CoordinatorService::resume(const std::string& id,
                                              const proto::ResumeRequest& change) {
  std::optional<Admitted> admitted;
  if (change.has_parallel() || change.has_resources()) {
    WEFT_ASSIGN_OR_RETURN(const proto::Job job, parts_.store.job(id));
    WEFT_ASSIGN_OR_RETURN(proto::JobSpec spec, with_change(job.spec(), change));
    WEFT_ASSIGN_OR_RETURN(admitted, admit(std::move(spec), rows_at_once(job.spec())));
  }
  return parts_.store.edit_job(id, [&](JobEdit& edit) -> Status {
    proto::Job& job = edit.job;
    const bool same = !admitted || same_run(job.spec(), admitted->spec);
    switch (job.state()) {
      case proto::JOB_STATE_QUEUED:
        if (same) return {};
        break;
      case proto::JOB_STATE_STARTING:
      case proto::JOB_STATE_RUNNING:
        return same ? Status() : wrong_state(job, "pause it before it goes on with another mesh");
      case proto::JOB_STATE_PAUSED:
      case proto::JOB_STATE_FAILED:
        break;
      default:
        return wrong_state(job, "only a paused or failed job can be resumed" + what_else(job));
    }
    queue_again(job);
    if (same) {
      edit.event("queued", "info", "resumed by request, " + from_where(job));
      return {};
    }
    change_run(edit, *admitted);
    return {};
  });
}

void CoordinatorService::change_run(JobEdit& edit, const Admitted& admitted) {
  proto::Job& job = edit.job;
  const std::string before = mesh_text(job.spec().parallel());
  const std::string after = mesh_text(admitted.spec.parallel());
  *job.mutable_spec()->mutable_parallel() = admitted.spec.parallel();
  *job.mutable_spec()->mutable_training() = admitted.spec.training();
  *job.mutable_spec()->mutable_resources() = admitted.spec.resources();
  *job.mutable_rank_memory() = admitted.memory;
  job.set_infeasible(false);
  job.clear_plan();
  job.clear_resume_note();
  const bool exact = job.spec().training().reproducible() == proto::REPRODUCIBLE_TOPOLOGY;
  auto& event = edit.event(
      "queued", "info",
      before == after
          ? fmt::format("resumed by request, {}, with other resources", from_where(job))
          : fmt::format("resumed by request, {}, on {} instead of {}; the loss curve "
                        "goes on {}",
                        from_where(job), after, before, exact ? "bit for bit" : "to 1e-4"));
  (*event.mutable_data())["mesh"] = after;
  (*event.mutable_data())["mesh_before"] = before;
  if (!admitted.plan) return;
  edit.event("planned", "info", after + ": " + admitted.plan->reason());
  *job.mutable_plan() = *admitted.plan;
}

}  // namespace weft
