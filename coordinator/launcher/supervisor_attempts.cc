// Attempts: placing, launching, watching, ending.
#include <fmt/format.h>

#include <algorithm>

#include "coordinator/launcher/launch_record.h"
#include "coordinator/launcher/supervisor.h"
#include "coordinator/scheduler/applier.h"
#include "coordinator/scheduler/plan.h"
#include "coordinator/scheduler/snapshot_parts.h"

namespace weft {
namespace {

std::vector<NodeSlots> slots_of(const proto::Placement& placement) {
  std::vector<NodeSlots> slots;
  for (const auto& node : placement.nodes()) {
    slots.push_back({node.name(), {node.slots().begin(), node.slots().end()}});
  }
  return slots;
}

int64_t limit_end_ms(const proto::Job& job) {
  const int64_t limit = job.spec().resources().time_limit_seconds();
  return limit == 0 ? 0 : job.started_ms() + limit * 1000;
}

}  // namespace

Supervisor::Active* Supervisor::find_active(const std::string& job, int32_t attempt) {
  auto it = active_.find(job);
  return it != active_.end() && it->second.key.second == attempt ? &it->second : nullptr;
}

bool Supervisor::usable(const Node& node) const {
  return node.session != 0 && node.info.state() == proto::NODE_STATE_READY &&
         leases_.alive(node.info.name());
}

Snapshot Supervisor::snapshot() const {
  Snapshot snapshot;
  snapshot.draining = draining();
  for (const auto& [name, node] : nodes_) {
    snapshot.nodes.push_back(snapshot_of(node.info, usable(node)));
  }
  for (const auto& [key, parts] : leaving_) {
    SlotHolder holder{key.first, {}, parts_.clock.wall_ms()};
    for (const auto& [name, left] : parts) holder.placement.push_back({name, left.slots});
    snapshot.holders.push_back(std::move(holder));
  }
  for (const JobPointer& job : parts_.store.jobs()) {
    if (is_active(job->state())) {
      snapshot.holders.push_back({job->id(), slots_of(job->placement()), limit_end_ms(*job)});
    }
    if (job->state() != proto::JOB_STATE_QUEUED) continue;
    PendingJob& pending = snapshot.pending.emplace_back();
    static_cast<Gang&>(pending) = gang_of(job->spec(), job->rank_memory());
    pending.job = job->id();
    pending.attempt = job->attempt();
    pending.priority = job->spec().priority();
    pending.submit_sequence = job->submit_sequence();
    pending.eligible_ms = job->eligible_ms();
    pending.time_limit_seconds = job->spec().resources().time_limit_seconds();
    for (auto it = leaving_.lower_bound({job->id(), 0});
         it != leaving_.end() && it->first.first == job->id(); ++it) {
      for (const auto& [name, left] : it->second) pending.leaving.push_back(name);
    }
  }
  return snapshot;
}

void Supervisor::schedule() {
  const Plan result = plan(snapshot(), parts_.clock.wall_ms());
  for (const auto& [job, wait] : result.waits) {
    parts_.store.set_wait(job, wait.reason, wait.infeasible);
  }
  for (const PlannedStart& start : result.starts) {
    const auto job = apply_start(parts_.store, start, parts_.clock);
    if (job) {
      launch(*job);
    } else if (job.error().code() != Code::kStale) {
      parts_.log.warn("{}", job.error().with_prefix(start.job).to_string());
      parts_.store.set_wait(start.job, job.error().to_string(), false);
    }
  }
}

void Supervisor::launch(const proto::Job& job) {
  Active& active = active_[job.id()];
  active = Active{.key = {job.id(), job.attempt()}, .since = now()};
  for (const auto& placed : job.placement().nodes()) {
    active.nodes.push_back(placed.name());
    active.parts[placed.name()];
  }
  parts_.log.info("{}/{}: preparing on {} nodes", job.id(), job.attempt(), active.nodes.size());
  for (const std::string& node : active.nodes) send_prepare(active, node);
}

void Supervisor::send_prepare(Active& active, const std::string& node) {
  const JobPointer job = parts_.store.find(active.key.first);
  if (!job || job->state() != proto::JOB_STATE_STARTING || active.ending) return;
  std::map<std::string, proto::NodeInfo> infos;
  for (const std::string& name : active.nodes) {
    if (auto it = nodes_.find(name); it != nodes_.end()) infos[name] = it->second.info;
  }
  auto record = make_launch_record(parts_.store, *job, infos, options_.secret);
  if (!record) {
    active.ending = EndCause{record.error().to_string(), record.error().code() != Code::kNotFound};
    return;
  }
  proto::NodeFrame frame;
  *frame.mutable_prepare()->mutable_record() = std::move(*record);
  send_to(node, frame);
}

void Supervisor::take_prepared(const std::string& node, const proto::AttemptRef& ref) {
  Active* active = find_active(ref.job(), ref.attempt());
  if (active == nullptr) return;  // the next lease revokes it
  auto part = active->parts.find(node);
  if (part != active->parts.end()) part->second.prepared = true;
}

void Supervisor::check_attempts() {
  const auto current = [&](const Active& active) -> JobPointer {
    const JobPointer job = parts_.store.find(active.key.first);
    const bool same = job && is_active(job->state()) && job->attempt() == active.key.second;
    return same ? job : nullptr;
  };
  std::vector<AttemptKey> over;
  for (auto& [id, active] : active_) {
    if (const JobPointer job = current(active)) check_attempt(active, *job);
    if (!current(active)) over.push_back(active.key);
  }
  for (const AttemptKey& key : over) retire(key, true);
}

void Supervisor::check_attempt(Active& active, const proto::Job& job) {
  if (active.ending) return end(active, *active.ending);
  check_time_limit(job);
  bool all_gone = true;
  bool all_prepared = true;
  for (auto& [name, part] : active.parts) {
    if (!part.gone && part.absent_since.count() >= 0 &&
        now() - part.absent_since >= seconds(options_.absent_seconds)) {
      part.gone = true;
      part.exit.set_exit_code(1);
      part.exit.set_message("node " + name + " no longer knows of the attempt");
      if (active.first_exit.count() < 0) active.first_exit = now();
    }
    all_gone = all_gone && part.gone;
    all_prepared = all_prepared && part.prepared && !part.gone;
  }
  if (active.first_exit.count() >= 0 &&
      (all_gone || now() - active.first_exit >= seconds(options_.settle_seconds))) {
    std::vector<proto::AttemptExit> exits;
    for (const std::string& name : active.nodes) exits.push_back(active.parts.at(name).exit);
    return end(active, cause_of(exits));
  }
  const bool starting = job.state() == proto::JOB_STATE_STARTING;
  if (starting && all_prepared && !active.start_sent) {
    proto::NodeFrame frame;
    frame.mutable_start()->mutable_attempt()->set_job(active.key.first);
    frame.mutable_start()->mutable_attempt()->set_attempt(active.key.second);
    if (send_to(active.nodes.front(), frame)) {
      active.start_sent = true;
      active.since = now();
      parts_.log.info("{}/{}: started", active.key.first, active.key.second);
    }
  }
  const double patience = active.start_sent ? options_.start_seconds : options_.prepare_seconds;
  if (starting && now() - active.since >= seconds(patience)) {
    return end(active, {fmt::format("its nodes were not {} within {} s",
                                    active.start_sent ? "training" : "ready", patience),
                        true});
  }
  if (job.state() == proto::JOB_STATE_RUNNING && now() >= active.next_watch) {
    active.next_watch = now() + seconds(1);
    int ranks = 0;
    for (const auto& placed : job.placement().nodes()) ranks += placed.slots_size();
    const auto verdict = active.watchdog.verdict(ranks, job.spec().hang_seconds());
    if (verdict) return end(active, {*verdict, true});
  }
  check_controls(active, job);
}

// What the ranks are asked to do; a request for a checkpoint stands until one has answered it.
void Supervisor::check_controls(Active& active, const proto::Job& job) {
  proto::Control control;
  const bool pausing = job.state() == proto::JOB_STATE_PAUSING;
  if (pausing || job.state() == proto::JOB_STATE_CANCELLING) {
    if (job.ranks().empty()) return end(active, {"ended before its ranks had started", true});
    if (active.control_since.count() < 0) active.control_since = now();
    if (now() - active.control_since >= seconds(options_.control_seconds)) {
      return end(
          active,
          {fmt::format("its ranks did not react within {} s", options_.control_seconds), true});
    }
    control.set_kind(pausing ? proto::CONTROL_KIND_PAUSE : proto::CONTROL_KIND_CANCEL);
    control.set_why(job.reason());
    send_controls(active, control);
  } else if (job.state() == proto::JOB_STATE_RUNNING && draining()) {
    control.set_kind(proto::CONTROL_KIND_PAUSE);
    control.set_why("the cluster is coming to rest");
    send_controls(active, control);
  } else if (job.state() == proto::JOB_STATE_RUNNING &&
             job.checkpoint_requests() > job.checkpoint_requests_answered()) {
    control.set_kind(proto::CONTROL_KIND_CHECKPOINT);
    control.set_why("by request");
    control.set_request(job.checkpoint_requests());
    send_controls(active, control);
  }
}

void Supervisor::check_time_limit(const proto::Job& job) {
  const int64_t end_ms = limit_end_ms(job);
  if (end_ms == 0 || parts_.clock.wall_ms() < end_ms) return;
  if (job.state() != proto::JOB_STATE_STARTING && job.state() != proto::JOB_STATE_RUNNING) return;
  const auto stored =
      parts_.store.edit_attempt(job.id(), job.attempt(), [&](JobEdit& edit) -> Status {
        edit.job.set_state(proto::JOB_STATE_CANCELLING);
        edit.job.set_time_limit_reached(true);
        edit.job.set_reason(
            fmt::format("time limit of {} s reached", job.spec().resources().time_limit_seconds()));
        edit.event("time_limit", "warn", edit.job.reason());
        return {};
      });
  if (!stored) parts_.log.warn("{}: {}", job.id(), stored.error().to_string());
}

// Once to each node, and again on its next connection.
void Supervisor::send_controls(Active& active, const proto::Control& control) {
  for (auto& [name, part] : active.parts) {
    auto node = nodes_.find(name);
    if (part.gone || node == nodes_.end() || node->second.session == 0) continue;
    if (part.told.kind() == control.kind() && part.told.request() == control.request() &&
        part.told_session == node->second.session) {
      continue;
    }
    proto::NodeFrame frame;
    frame.mutable_control()->mutable_attempt()->set_job(active.key.first);
    frame.mutable_control()->mutable_attempt()->set_attempt(active.key.second);
    *frame.mutable_control()->mutable_control() = control;
    if (!send_to(name, frame)) continue;
    part.told = control;
    part.told_session = node->second.session;
  }
}

void Supervisor::end(Active& active, const EndCause& cause) {
  const auto stored =
      parts_.store.edit_attempt(active.key.first, active.key.second, [&](JobEdit& edit) -> Status {
        end_attempt(edit, cause, options_.restarts, parts_.clock.wall_ms());
        return {};
      });
  if (!stored && stored.error().code() != Code::kStale) {
    parts_.log.warn("{}: {}", active.key.first, stored.error().to_string());
    if (!active.ending) active.ending = cause;  // again at the next step
    return;
  }
  parts_.log.warn("{}/{}: {}", active.key.first, active.key.second, cause.message);
}

// The attempt is over; what it may still have on its nodes holds its slots until they say
// otherwise.
void Supervisor::retire(const AttemptKey& key, bool stop_now) {
  auto it = active_.find(key.first);
  if (it == active_.end() || it->second.key != key) return;
  const JobPointer job = parts_.store.find(key.first);
  for (const auto& [name, part] : it->second.parts) {
    auto node = nodes_.find(name);
    if (part.gone || node == nodes_.end()) continue;
    if (node->second.info.state() == proto::NODE_STATE_LOST) continue;
    Leaving& left = leaving_[key][name];
    const proto::Placement placement = job ? job->placement() : proto::Placement();
    for (const auto& placed : placement.nodes()) {
      if (placed.name() == name) left.slots.assign(placed.slots().begin(), placed.slots().end());
    }
    left.since = now();
    left.stop_at = stop_now ? now() : now() + seconds(options_.leave_seconds);
  }
  active_.erase(it);
  parts_.store.set_stall(key.first, "");
}

}  // namespace weft
