// Submission: what a spec may name, and whether the cluster could ever run it.
#include "coordinator/coordinator_service.h"
#include "coordinator/scheduler/fit.h"
#include "coordinator/service_inputs.h"
#include "proto/base/hash.h"
#include "proto/json/job_rules.h"

namespace weft {

Result<proto::JobSpec> CoordinatorService::validate(proto::JobSpec spec) {
  WEFT_RETURN_IF_ERROR(finish_job(spec));
  WEFT_RETURN_IF_ERROR(check_inputs(parts_.store, parts_.content, spec));
  std::vector<SnapshotNode> known;
  for (const proto::NodeInfo& node : parts_.store.nodes()) {
    known.push_back({node.name(), node.slots(), true});
  }
  WEFT_RETURN_IF_ERROR(check_feasible(known, spec.resources().slots(), spec.resources().nodes()));
  return spec;
}

Result<proto::Job> CoordinatorService::submit(proto::JobSpec spec,
                                              const std::string& idempotency_key,
                                              const std::string& request_hash) {
  if (idempotency_key.size() > 256) {
    return fail(Status::invalid("idempotency key", idempotency_key.substr(0, 80),
                                "must have at most 256 bytes"));
  }
  WEFT_ASSIGN_OR_RETURN(const auto earlier,
                        parts_.store.find_by_key(idempotency_key, request_hash));
  if (earlier) return *earlier;
  WEFT_ASSIGN_OR_RETURN(spec, validate(std::move(spec)));
  JobEdit edit;
  proto::Job& job = edit.job;
  job.set_id("job-" + random_hex(5));
  job.set_state(proto::JOB_STATE_QUEUED);
  job.set_name(spec.name());
  job.set_kind(spec.kind());
  job.set_steps(spec.training().steps());
  job.set_reason("just submitted");
  job.set_idempotency_key(idempotency_key);
  job.set_request_hash(request_hash);
  *job.mutable_spec() = std::move(spec);
  edit.event("submitted", "info", "submitted as " + job.name());
  return parts_.store.create_job(std::move(edit));
}

}  // namespace weft
