// Submission: what a spec may name, and whether the cluster could ever run it.
#include <fmt/format.h>

#include <algorithm>

#include "coordinator/coordinator_service.h"
#include "coordinator/launcher/snapshot_parts.h"
#include "coordinator/scheduler/fit.h"
#include "coordinator/service_inputs.h"
#include "coordinator/service_plan.h"
#include "proto/base/hash.h"
#include "proto/json/job_rules.h"
#include "worker/admission/memory.h"

namespace weft {

namespace {

// What the job's ranks need, against what a slot of each node may take: refused where too few slots
// are left once those are taken away that clearly cannot hold a rank.
Status check_memory(const AdmittedModel& model, const proto::JobSpec& spec,
                    const std::vector<proto::NodeInfo>& nodes) {
  if (model.config == nullptr || nodes.empty()) return {};
  proto::JobSpec least = spec;
  const bool rows_may_be_short =
      std::none_of(spec.tasks().begin(), spec.tasks().end(),
                   [](const auto& task) { return task.type() == proto::TASK_TYPE_CAUSAL_LM; });
  if (rows_may_be_short) least.mutable_training()->set_sequence_length(1);
  const MemoryEstimate estimate = estimate_memory(*model.family, *model.config, least);
  std::vector<SnapshotNode> holding;
  int64_t most = 0;
  for (const proto::NodeInfo& node : nodes) {
    const int64_t allowed = memory_of_slot(node.memory_bytes(), node.slots());
    // Of a GPU's memory nothing is known here.
    const bool too_large = node.gpus() == 0 && clearly_too_large(estimate, allowed);
    const int slots = too_large ? 0 : node.slots();
    holding.push_back(snapshot_of(node));
    holding.back().slots = slots;
    most = std::max(most, allowed);
  }
  const proto::ResourceSpec& resources = spec.resources();
  if (check_feasible(holding, resources.slots(), resources.nodes(), wanted_gpu(resources)).ok()) {
    return {};
  }
  const proto::TrainingSpec& training = spec.training();
  const bool by_batch = estimate.activations + estimate.workspace > estimate.tensors() / 2;
  return Status::invalid(
      by_batch ? "training.micro_batch_size" : "parallel.tensor",
      std::to_string(by_batch ? training.micro_batch_size() : spec.parallel().tensor()),
      fmt::format("must let the ranks fit the known nodes: one needs about {}; a slot there has at "
                  "most {}; {}",
                  estimate.to_string(), bytes_text(most), kLessMemory));
}

}  // namespace

Result<proto::JobSpec> CoordinatorService::admit(proto::JobSpec spec,
                                                 std::optional<proto::JobPlan>& plan) {
  WEFT_RETURN_IF_ERROR(finish_job(spec));
  AdmittedModel model;
  WEFT_RETURN_IF_ERROR(check_inputs(parts_.store, parts_.content, spec, model));
  const std::vector<proto::NodeInfo> nodes = parts_.store.nodes();
  if (spec.parallel().mode() == proto::PARALLEL_MODE_AUTO) {
    WEFT_ASSIGN_OR_RETURN(plan, plan_on(nodes, model, spec));
    if (!plan->has_chosen()) {
      return fail(Status::invalid("parallel", "auto", nothing_fits(*plan)));
    }
    plan->clear_meshes();
    spec = with_choice(spec, plan->chosen());
    WEFT_RETURN_IF_ERROR(finish_job(spec));
  }
  std::vector<SnapshotNode> known;
  for (const proto::NodeInfo& node : nodes) known.push_back(snapshot_of(node));
  const proto::ResourceSpec& resources = spec.resources();
  WEFT_RETURN_IF_ERROR(
      check_feasible(known, resources.slots(), resources.nodes(), wanted_gpu(resources)));
  if (!plan) WEFT_RETURN_IF_ERROR(check_memory(model, spec, nodes));
  return spec;
}

Result<proto::JobSpec> CoordinatorService::validate(proto::JobSpec spec) {
  std::optional<proto::JobPlan> plan;
  return admit(std::move(spec), plan);
}

Result<proto::JobPlan> CoordinatorService::plan(const proto::PlanRequest& request) {
  proto::JobSpec spec = request.job();
  WEFT_RETURN_IF_ERROR(finish_job(spec));
  WEFT_ASSIGN_OR_RETURN(const AdmittedModel model,
                        find_model_of(parts_.store, parts_.content, spec, request.model()));
  return plan_on(parts_.store.nodes(), model, spec);
}

Result<proto::Job> CoordinatorService::submit(proto::JobSpec spec,
                                              const std::string& idempotency_key,
                                              const std::string& request_hash) {
  if (idempotency_key.size() > 256) {
    return fail(Status::invalid("Idempotency-Key", idempotency_key.substr(0, 80),
                                "must have at most 256 bytes"));
  }
  WEFT_ASSIGN_OR_RETURN(const auto earlier,
                        parts_.store.find_by_key(idempotency_key, request_hash));
  if (earlier) return *earlier;
  std::optional<proto::JobPlan> plan;
  WEFT_ASSIGN_OR_RETURN(spec, admit(std::move(spec), plan));
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
  if (plan) {
    edit.event("planned", "info", mesh_text(plan->chosen()) + ": " + plan->reason());
    *job.mutable_plan() = std::move(*plan);
  }
  return parts_.store.create_job(std::move(edit));
}

}  // namespace weft
