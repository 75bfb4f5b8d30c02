// Submission: what a spec may name, and whether the cluster could ever run it.
#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "coordinator/coordinator_service.h"
#include "coordinator/scheduler/fit.h"
#include "coordinator/scheduler/snapshot_parts.h"
#include "coordinator/service_inputs.h"
#include "coordinator/service_plan.h"
#include "proto/base/hash.h"
#include "proto/json/job_rules.h"
#include "worker/admission/memory.h"
#include "worker/admission/mesh_text.h"
#include "worker/admission/shards.h"
#include "worker/planner/planner.h"

namespace weft {

namespace {

// What a rank at least needs of tensors, whatever the rows' lengths.
MemoryEstimate least_memory(const AdmittedModel& model, const proto::JobSpec& spec) {
  proto::JobSpec least = spec;
  const bool reads_targets = writes_targets(spec) && !hears(spec);
  const bool rows_may_be_short = !models_language(spec) || reads_targets;
  if (rows_may_be_short) least.mutable_training()->set_sequence_length(1);
  if (writes_targets(spec)) least.mutable_training()->set_target_length(1);
  return estimate_memory(*model.family, *model.config, least);
}

// Refused where too few slots are left once those are taken away that clearly cannot hold a rank.
Status check_memory(const AdmittedModel& model, const proto::JobSpec& spec, const Gang& gang,
                    const std::vector<proto::NodeInfo>& nodes) {
  std::vector<SnapshotNode> known;
  int64_t most = 0;
  bool on_gpu = false;
  for (const proto::NodeInfo& node : nodes) {
    known.push_back(snapshot_of(node));
    if (gang.gpu && known.back().gpu != *gang.gpu) continue;
    const int64_t has = known.back().gpu ? known.back().gpu_bytes : known.back().slot_bytes;
    if (has > most) std::tie(most, on_gpu) = std::tuple(has, known.back().gpu);
  }
  if (check_feasible(known, gang).ok()) return {};
  const MemoryEstimate estimate = least_memory(model, spec);
  const bool by_batch = estimate.activations + estimate.workspace > estimate.tensors() / 2;
  return Status::invalid(
      by_batch ? "training.micro_batch_size" : "parallel.tensor",
      std::to_string(by_batch ? spec.training().micro_batch_size() : spec.parallel().tensor()),
      fmt::format("must let the ranks fit the known nodes: one needs about {}; a {} there has at "
                  "most {}; {}",
                  estimate.to_string(), on_gpu ? "GPU" : "slot", bytes_text(most),
                  advice_on(nodes, model, spec)));
}

// What the scheduler holds nodes against: as planned, else what is beyond doubt.
proto::RankMemory rank_memory(const AdmittedModel& model, const proto::JobSpec& spec,
                              const std::optional<proto::JobPlan>& plan) {
  proto::RankMemory memory;
  if (plan) {
    const proto::MeshPlan& chosen = plan->chosen();
    const bool gpu = chosen.device() == proto::COMPUTE_DEVICE_GPU;
    if (gpu) memory.set_gpu_host_bytes(chosen.host_bytes());
    gpu ? memory.set_gpu_bytes(chosen.memory_bytes())
        : memory.set_host_bytes(chosen.memory_bytes());
  } else if (model.config != nullptr) {
    const int64_t clearly = beyond_doubt(least_memory(model, spec));
    memory.set_host_bytes(clearly);
    memory.set_gpu_bytes(clearly);
  }
  return memory;
}

// What is left open until a model is at hand.
void settle_defaults(const ModelConfig& config, proto::JobSpec& spec) {
  settle_attention(config, spec);
  if (!spec.has_adapter() || spec.adapter().targets_size() > 0) return;
  for (const std::string& target : config.adapter.targets) {
    spec.mutable_adapter()->add_targets(target);
  }
}

}  // namespace

Result<CoordinatorService::Admitted> CoordinatorService::admit(proto::JobSpec spec,
                                                               int64_t rows_at_once) {
  const GangSource source = source_of(spec);
  WEFT_RETURN_IF_ERROR(finish_job(spec));
  AdmittedModel model;
  WEFT_RETURN_IF_ERROR(check_inputs(parts_.store, parts_.content, spec, model));
  const std::vector<proto::NodeInfo> nodes = parts_.store.nodes();
  std::optional<proto::JobPlan> plan;
  if (spec.parallel().mode() == proto::PARALLEL_MODE_AUTO) {
    WEFT_ASSIGN_OR_RETURN(plan, plan_on(nodes, model, spec, source, rows_at_once));
    if (!plan->has_chosen()) {
      return fail(Status::invalid("parallel", "auto",
                                  "must have a mesh whose ranks fit: " + plan->reason()));
    }
    plan->clear_meshes();
    spec = with_choice(spec, plan->chosen());
    WEFT_RETURN_IF_ERROR(finish_job(spec));
  }
  std::vector<SnapshotNode> known;
  for (const proto::NodeInfo& node : nodes) known.push_back(snapshot_of(node));
  const proto::RankMemory memory = rank_memory(model, spec, plan);
  WEFT_RETURN_IF_ERROR(check_feasible(known, gang_of(spec, {}), source));
  if (!plan && !nodes.empty()) {
    WEFT_RETURN_IF_ERROR(check_memory(model, spec, gang_of(spec, memory), nodes));
  }
  ParameterCount parameters;
  if (model.config != nullptr) {
    parameters = count_parameters(*model.family, *model.config, spec);
    settle_defaults(*model.config, spec);
  }
  return Admitted{std::move(spec), std::move(plan), memory, parameters};
}

Result<proto::JobSpec> CoordinatorService::validate(proto::JobSpec spec) {
  WEFT_ASSIGN_OR_RETURN(Admitted admitted, admit(std::move(spec)));
  return std::move(admitted.spec);
}

Result<proto::JobPlan> CoordinatorService::plan(const proto::PlanRequest& request) {
  proto::JobSpec spec = request.job();
  const GangSource source = source_of(spec);
  WEFT_RETURN_IF_ERROR(finish_job(spec));
  WEFT_ASSIGN_OR_RETURN(const AdmittedModel model,
                        find_model_of(parts_.store, parts_.content, spec, request.model()));
  return plan_on(parts_.store.nodes(), model, spec, source);
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
  WEFT_ASSIGN_OR_RETURN(Admitted admitted, admit(std::move(spec)));
  spec = std::move(admitted.spec);
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
  *job.mutable_rank_memory() = admitted.memory;
  auto& submitted = edit.event("submitted", "info", "submitted as " + job.name());
  if (admitted.parameters.all > 0) {
    (*submitted.mutable_data())["parameters"] = std::to_string(admitted.parameters.all);
    (*submitted.mutable_data())["trained_parameters"] = std::to_string(admitted.parameters.trained);
  }
  if (admitted.plan) {
    edit.event("planned", "info",
               mesh_text(admitted.plan->chosen()) + ": " + admitted.plan->reason());
    *job.mutable_plan() = std::move(*admitted.plan);
  }
  return parts_.store.create_job(std::move(edit));
}

}  // namespace weft
