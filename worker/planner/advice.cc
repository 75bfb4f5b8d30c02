#include "worker/planner/advice.h"

#include <fmt/format.h>

#include <algorithm>

#include "proto/json/names.h"
#include "worker/admission/mesh_text.h"

namespace weft {
namespace {

using proto::MeshPlan;

constexpr int kEveryNumber = 16;  // up to so many slots each number is tried, then powers of two
constexpr const char* kSmaller =
    "lower training.batch_size, training.sequence_length or training.target_length, or take a "
    "smaller model";

// The job with everything open that decides what a rank needs.
proto::JobSpec opened(const proto::JobSpec& spec) {
  proto::JobSpec open = spec;
  open.mutable_parallel()->Clear();
  open.mutable_parallel()->set_mode(proto::PARALLEL_MODE_AUTO);
  open.mutable_training()->clear_micro_batch_size();
  open.mutable_training()->clear_activation_checkpointing();
  open.mutable_resources()->clear_slots();
  return open;
}

std::string with_settings(const MeshPlan& mesh) {
  std::string text =
      mesh_text(mesh) + fmt::format(", micro_batch_size {}", mesh.micro_batch_size());
  if (mesh.activation_checkpointing() == proto::ACTIVATION_CHECKPOINTING_NONE) return text;
  const auto* name = proto::ActivationCheckpointing_descriptor()->FindValueByNumber(
      mesh.activation_checkpointing());
  return text + ", activation_checkpointing " + enum_name(*name);
}

// The fewest slots, each as large as the largest that there is, on which a mesh fits. `any`:
// whether the job's rules allow one on any number of them.
std::optional<MeshPlan> fewest_slots(PlanRequirements requirements, bool& any) {
  const auto as_large = [&](int slots,
                            const RankNeeds& rank) -> std::optional<std::vector<HostShare>> {
    for (const SlotMemory& device : requirements.devices) {
      const auto holds = [](int64_t has, int64_t needs) { return has == 0 || needs <= has; };
      if (device.gpu != rank.gpu || !holds(device.memory, rank.memory)) continue;
      if (!rank.gpu || holds(device.host, rank.host)) {
        HostShare host{.speed = {}, .cores = slots, .ranks = slots, .gpu = rank.gpu};
        return std::vector<HostShare>{host};
      }
    }
    return std::nullopt;
  };
  requirements.find_hosts = as_large;
  for (int n = 1; n <= kAdvisedSlotsMax; n = n < kEveryNumber ? n + 1 : 2 * n) {
    requirements.slots = {n};
    const proto::JobPlan plan = plan_job(requirements);
    any = any || !plan.meshes().empty();
    if (plan.has_chosen()) return plan.chosen();
  }
  return std::nullopt;
}

}  // namespace

std::string what_would_fit(const PlanRequirements& requirements) {
  const proto::JobSpec open = opened(requirements.spec);
  PlanRequirements free{requirements.family, requirements.config,  open,
                        requirements.slots,  requirements.devices, requirements.find_hosts};
  const proto::JobPlan here = plan_job(free);
  if (here.has_chosen()) return "these nodes can hold " + with_settings(here.chosen());
  std::string text;
  bool any = !here.meshes().empty();
  if (const auto more = fewest_slots(free, any)) {
    text = fmt::format("{} slot{} as large as the largest there would do ({})", more->slots(),
                       more->slots() == 1 ? "" : "s", with_settings(*more));
  } else if (!any) {
    return "";
  } else {
    text = fmt::format("no mesh of up to {} slots as large as the largest there would fit",
                       kAdvisedSlotsMax);
  }
  if (here.meshes().empty()) return text;  // not memory is what lacks
  const MeshPlan& least = here.meshes(0);
  return text + fmt::format("; {} slot{} would need {} each ({}); {}", least.slots(),
                            least.slots() == 1 ? "" : "s", bytes_text(least.memory_bytes()),
                            with_settings(least), std::string("else ") + kSmaller);
}

}  // namespace weft
