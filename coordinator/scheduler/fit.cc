#include "coordinator/scheduler/fit.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace weft {
namespace {

// The node with the fewest free slots that still has `slots`, among those not taken; -1: none.
int tightest(const std::vector<int>& free, const std::vector<bool>& taken, int slots) {
  int best = -1;
  for (int i = 0; i < static_cast<int>(free.size()); ++i) {
    const auto at = static_cast<size_t>(i);
    if (taken[at] || free[at] < slots) continue;
    if (best < 0 || free[at] < free[static_cast<size_t>(best)]) best = i;
  }
  return best;
}

std::optional<std::vector<SlotCount>> fit_evenly(const std::vector<int>& free, int slots,
                                                 int nodes) {
  if (slots < nodes) return std::nullopt;
  std::vector<bool> taken(free.size(), false);
  std::vector<SlotCount> chosen;
  for (int i = 0; i < nodes; ++i) {
    const int share = slots / nodes + (i < slots % nodes ? 1 : 0);  // larger shares first
    const int node = tightest(free, taken, share);
    if (node < 0) return std::nullopt;
    taken[static_cast<size_t>(node)] = true;
    chosen.push_back({node, share});
  }
  return chosen;
}

std::optional<std::vector<SlotCount>> fit_few(const std::vector<int>& free, int slots) {
  if (std::accumulate(free.begin(), free.end(), int64_t{0},
                      [](int64_t sum, int f) { return sum + std::max(0, f); }) < slots) {
    return std::nullopt;
  }
  std::vector<bool> taken(free.size(), false);
  std::vector<SlotCount> chosen;
  while (slots > 0) {
    int node = tightest(free, taken, slots);  // the last one: as tight as possible
    if (node < 0) {                           // else the emptiest, so that few are needed
      for (int i = 0; i < static_cast<int>(free.size()); ++i) {
        if (taken[static_cast<size_t>(i)]) continue;
        if (node < 0 || free[static_cast<size_t>(i)] > free[static_cast<size_t>(node)]) node = i;
      }
    }
    const int share = std::min(slots, free[static_cast<size_t>(node)]);
    taken[static_cast<size_t>(node)] = true;
    chosen.push_back({node, share});
    slots -= share;
  }
  return chosen;
}

size_t kinds_of(const std::vector<SnapshotNode>& nodes) {
  std::set<bool> kinds;
  for (const SnapshotNode& node : nodes) kinds.insert(node.gpu);
  return kinds.size();
}

}  // namespace

std::optional<std::vector<SlotCount>> fit_gang(const std::vector<int>& free, int slots, int nodes) {
  return nodes > 0 ? fit_evenly(free, slots, nodes) : fit_few(free, slots);
}

std::optional<std::vector<SlotCount>> fit_reachable(const std::vector<int>& free,
                                                    const std::vector<int>& groups, int slots,
                                                    int nodes) {
  auto whole = fit_gang(free, slots, nodes);
  if (!whole || groups.empty()) return whole;
  const auto group_of = [&](const SlotCount& count) {
    return groups[static_cast<size_t>(count.node)];
  };
  if (std::all_of(whole->begin(), whole->end(), [&](const SlotCount& count) {
        return group_of(count) == group_of(whole->front());
      })) {
    return whole;
  }
  for (const int wanted : std::set<int>(groups.begin(), groups.end())) {
    std::vector<int> part = free;
    for (size_t i = 0; i < part.size(); ++i) {
      if (groups[i] != wanted) part[i] = 0;
    }
    if (auto found = fit_gang(part, slots, nodes)) return found;
  }
  return std::nullopt;
}

std::vector<int> on_device(std::vector<int> free, const std::vector<SnapshotNode>& of_nodes,
                           std::optional<bool> gpu) {
  for (size_t i = 0; i < free.size(); ++i) {
    if (gpu && of_nodes[i].gpu != *gpu) free[i] = 0;
  }
  return free;
}

Status check_feasible(const std::vector<SnapshotNode>& nodes_known, int slots, int nodes,
                      std::optional<bool> gpu) {
  if (nodes > slots) {
    return Status::invalid("resources.nodes", std::to_string(nodes),
                           "must be at most resources.slots (" + std::to_string(slots) + ")");
  }
  if (nodes_known.empty()) return {};
  // Of the device that is asked for; of either, the one with more slots, as they do not mix.
  std::vector<int> capacity;
  for (const bool on_gpus : {true, false}) {
    if (gpu && *gpu != on_gpus) continue;
    std::vector<int> of_kind;
    for (const SnapshotNode& node : nodes_known) {
      if (node.gpu == on_gpus) of_kind.push_back(node.slots);
    }
    if (fit_gang(of_kind, slots, nodes)) return {};
    const auto total_of = [](const std::vector<int>& each) {
      return std::accumulate(each.begin(), each.end(), 0);
    };
    if (total_of(of_kind) > total_of(capacity)) capacity = std::move(of_kind);
  }
  if (capacity.empty() && gpu) {
    return Status::invalid(
        "resources.device", *gpu ? "gpu" : "cpu",
        std::string("no known node has ranks that compute on ") + (*gpu ? "GPUs" : "the CPU"));
  }
  const std::string kind = kinds_of(nodes_known) == 1 ? "" : " of one device";
  const int total = std::accumulate(capacity.begin(), capacity.end(), 0);
  const std::string whole = std::to_string(total) + " on " + std::to_string(capacity.size()) +
                            (capacity.size() == 1 ? " node" : " nodes");
  if (slots > total) {
    return Status::invalid("resources.slots", std::to_string(slots),
                           "(by default data x sequence x tensor) must be at most the slots of all "
                           "known nodes" +
                               kind + ": " + whole);
  }
  if (nodes > static_cast<int>(capacity.size())) {
    return Status::invalid("resources.nodes", std::to_string(nodes),
                           "must be at most the number of known nodes" + kind + ": " +
                               std::to_string(capacity.size()));
  }
  return Status::invalid("resources.nodes", std::to_string(nodes),
                         std::to_string(slots) + " slots spread evenly over so many nodes do not " +
                             "fit the known nodes: " + whole);
}

}  // namespace weft
