#include "coordinator/scheduler/reason.h"

#include <fmt/format.h>

#include <map>
#include <numeric>
#include <set>

#include "coordinator/scheduler/fit.h"

namespace weft {
namespace {

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (size_t i = 0; i < parts.size() && i < 4; ++i) text += (i ? ", " : "") + parts[i];
  if (parts.size() > 4) text += fmt::format(" and {} more", parts.size() - 4);
  return text;
}

std::string slots_text(const Gang& gang) {
  const auto [slots, nodes] = std::pair(gang.slots, gang.nodes);
  std::string text = fmt::format("{} slot{}", slots, slots == 1 ? "" : "s");
  if (nodes > 0) text += fmt::format(" on {} node{}", nodes, nodes == 1 ? "" : "s");
  return text;
}

// "; n1 has too little memory for a rank": of nodes that would do but for that.
std::string small_text(const Snapshot& snapshot, const PendingJob& job) {
  Gang anywhere = job;
  anywhere.memory = {};
  std::vector<std::string> small;
  for (const SnapshotNode& node : snapshot.nodes) {
    if (node.usable && suits(node, anywhere) && !suits(node, job)) small.push_back(node.name);
  }
  if (small.empty()) return "";
  return fmt::format("; {} {} too little memory for a rank", joined(small),
                     small.size() == 1 ? "has" : "have");
}

// What a job whose nodes are gone could do instead of waiting for them.
std::string instead_text(const PendingJob& job, const std::vector<int>& capacity) {
  if (capacity.empty()) return "";
  return fmt::format("; 'weft resume {} --parallel auto{}' goes on with the nodes that there are",
                     job.job, job.nodes > 0 ? " --nodes 0" : "");
}

std::string backs_off_text(int64_t eligible_ms) {
  const int64_t second = eligible_ms / 1000 + 1;
  return fmt::format("backs off after a failure until {:02}:{:02}:{:02} UTC", second / 3600 % 24,
                     second / 60 % 60, second % 60);
}

// What holds a job itself back, whatever the slots; empty: nothing.
std::string own_delay(const PendingJob& job, int64_t now_ms) {
  if (!job.leaving.empty()) {
    return fmt::format("waits until attempt {} has ended on {}", job.attempt, joined(job.leaving));
  }
  return job.eligible_ms > now_ms ? backs_off_text(job.eligible_ms) : "";
}

}  // namespace

std::string reason_to_wait(const Snapshot& snapshot, const std::vector<PlannedStart>& starts,
                           const PendingJob& job, int64_t now_ms, const std::vector<int>& free,
                           const PendingJob* ahead) {
  if (snapshot.nodes.empty()) return "no node has joined yet; start one with `weft join`";
  if (snapshot.draining) return "the cluster is coming to rest ('weft down'); nothing is started";
  if (std::string delay = own_delay(job, now_ms); !delay.empty()) return delay;
  std::vector<int> capacity, groups;
  std::vector<std::string> lost, unreachable;
  std::set<std::string> usable;
  for (const SnapshotNode& node : snapshot.nodes) {
    if (!suits(node, job)) continue;
    if (!node.usable) lost.push_back(node.name);
    if (!node.usable) continue;
    usable.insert(node.name);
    capacity.push_back(node.slots);
    groups.push_back(node.group());
    if (!node.loopback.empty()) unreachable.push_back(node.name + " at " + node.loopback);
  }
  const std::string wanted = slots_text(job);
  if (!fit_gang(capacity, job.slots, job.nodes)) {
    return fmt::format("waits for {}: not reachable: {}{}{}", wanted, joined(lost),
                       small_text(snapshot, job), instead_text(job, capacity));
  }
  if (!fit_reachable(capacity, groups, job.slots, job.nodes)) {
    if (unreachable.empty()) {
      return fmt::format("waits for {} of one device: not reachable: {}", wanted, joined(lost));
    }
    return fmt::format(
        "waits for {}: other nodes cannot reach {}; give it an address of its network (`weft up "
        "--address` or weft-agent's --address)",
        wanted, joined(unreachable));
  }
  if (ahead) {
    const std::string delay = own_delay(*ahead, now_ms);
    return fmt::format("behind {}, which {} and {}", ahead->job,
                       ahead->priority > job.priority ? "has a higher priority" : "came earlier",
                       delay.empty() ? "waits for " + slots_text(*ahead) : delay);
  }
  std::map<std::string, int> held;
  const auto count = [&](const std::string& name, const std::vector<NodeSlots>& placement) {
    for (const NodeSlots& part : placement) {
      if (usable.contains(part.node)) held[name] += static_cast<int>(part.slots.size());
    }
  };
  for (const SlotHolder& holder : snapshot.holders) count(holder.job, holder.placement);
  for (const PlannedStart& start : starts) count(start.job, start.placement);
  std::vector<std::string> holders;
  for (const auto& [name, slots] : held)
    holders.push_back(fmt::format("{} held by {}", slots, name));
  const int total = std::accumulate(capacity.begin(), capacity.end(), 0);
  return fmt::format("waits for {}: {} free of {}{}{}{}", wanted,
                     std::accumulate(free.begin(), free.end(), 0), total,
                     holders.empty() ? "" : "; ", joined(holders), small_text(snapshot, job));
}

}  // namespace weft
