#include "coordinator/scheduler/applier.h"

#include <fmt/format.h>

#include <algorithm>

#include "coordinator/scheduler/snapshot_parts.h"

namespace weft {
namespace {

bool overlaps(const proto::Placement& placement, const std::vector<NodeSlots>& wanted) {
  for (const auto& node : placement.nodes()) {
    for (const NodeSlots& part : wanted) {
      if (part.node != node.name()) continue;
      for (int slot : part.slots) {
        if (std::count(node.slots().begin(), node.slots().end(), slot) > 0) return true;
      }
    }
  }
  return false;
}

Status stale(const std::string& job, std::string why) {
  return {Code::kStale, job + ": the plan is stale: " + std::move(why)};
}

}  // namespace

Result<proto::Job> apply_start(JobStore& store, const PlannedStart& start, const Clock& clock) {
  return store.edit_job(start.job, [&](JobEdit& edit) -> Status {
    proto::Job& job = edit.job;
    if (job.state() != proto::JOB_STATE_QUEUED) {
      return stale(start.job, "it is " + state_name(job.state()));
    }
    if (job.attempt() != start.attempt_before) return stale(start.job, "it was started meanwhile");
    if (gang_of(job.spec(), job.rank_memory()) != start.gang) {
      return stale(start.job, "it asks for something else now");
    }
    if (job.eligible_ms() > clock.wall_ms()) return stale(start.job, "it has to wait");
    for (const JobPointer& other : store.jobs()) {
      if (is_active(other->state()) && overlaps(other->placement(), start.placement)) {
        return stale(start.job, other->id() + " holds its slots");
      }
    }
    job.set_state(proto::JOB_STATE_STARTING);
    job.set_attempt(job.attempt() + 1);
    job.set_started_ms(clock.wall_ms());
    job.set_reason("");
    job.set_infeasible(false);
    job.clear_ranks();
    job.clear_placement();
    job.clear_tokens_per_second();
    job.clear_seconds_left();
    std::string where;
    for (const NodeSlots& part : start.placement) {
      auto* node = job.mutable_placement()->add_nodes();
      node->set_name(part.node);
      for (int slot : part.slots) node->add_slots(slot);
      where += fmt::format("{}{} x{}", where.empty() ? "" : ", ", part.node, part.slots.size());
    }
    edit.event("starting", "info", fmt::format("attempt {} on {}", job.attempt(), where));
    return {};
  });
}

}  // namespace weft
