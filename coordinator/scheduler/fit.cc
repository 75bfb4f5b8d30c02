#include "coordinator/scheduler/fit.h"

#include <fmt/format.h>

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

// Slots that a gang could have, of all nodes of one device.
struct Slots {
  std::vector<int> of_node;
  int total = 0;
  bool fits = false;
};

// Of the device that is asked for; of either, the one that fits, else that with more slots.
Slots largest_kind(const std::vector<SnapshotNode>& nodes, const Gang& gang, bool with_memory) {
  Gang wanted = gang;
  if (!with_memory) wanted.memory = {};
  Slots largest;
  for (const bool gpu : {true, false}) {
    Slots kind;
    for (const SnapshotNode& node : nodes) {
      if (node.gpu == gpu && suits(node, wanted)) kind.of_node.push_back(node.slots);
    }
    kind.total = std::accumulate(kind.of_node.begin(), kind.of_node.end(), 0);
    kind.fits = fit_gang(kind.of_node, gang.slots, gang.nodes).has_value();
    if (std::pair(kind.fits, kind.total) > std::pair(largest.fits, largest.total)) largest = kind;
  }
  return largest;
}

std::string counted(int count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
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

bool suits(const SnapshotNode& node, const Gang& gang) {
  const auto holds = [](int64_t has, int64_t needs) { return has == 0 || needs <= has; };
  if (gang.gpu && node.gpu != *gang.gpu) return false;
  if (!node.gpu) return holds(node.slot_bytes, gang.memory.host);
  return holds(node.gpu_bytes, gang.memory.gpu) && holds(node.slot_bytes, gang.memory.gpu_host);
}

std::vector<int> free_for(const Gang& gang, std::vector<int> free,
                          const std::vector<SnapshotNode>& of_nodes) {
  for (size_t i = 0; i < free.size(); ++i) {
    if (!suits(of_nodes[i], gang)) free[i] = 0;
  }
  return free;
}

Status check_feasible(const std::vector<SnapshotNode>& nodes_known, const Gang& gang,
                      const GangSource& source) {
  if (gang.nodes > gang.slots) {
    return Status::invalid("resources.nodes", std::to_string(gang.nodes),
                           fmt::format("must be at most the number of ranks, {}", gang.slots));
  }
  if (nodes_known.empty()) return {};
  const Slots all = largest_kind(nodes_known, gang, false);
  const Slots suiting = largest_kind(nodes_known, gang, true);
  if (suiting.fits) return {};
  const auto invalid = [&](const std::string& rule) {
    return Status::invalid(source.field,
                           source.value.empty() ? std::to_string(gang.slots) : source.value, rule);
  };
  if (all.of_node.empty() && gang.gpu) {
    return Status::invalid(
        "resources.device", *gang.gpu ? "gpu" : "cpu",
        fmt::format("must be what a node offers: no known node has ranks that compute on {}",
                    *gang.gpu ? "GPUs" : "the CPU"));
  }
  if (all.fits) {
    return invalid(fmt::format(
        "asks for {}, but too few of the {} of all known nodes have the memory that a rank needs",
        counted(gang.slots, "rank"), counted(all.total, "slot")));
  }
  const std::string kind = kinds_of(nodes_known) == 1 ? "" : " of one device";
  const int nodes = static_cast<int>(std::ssize(all.of_node));
  const std::string whole =
      fmt::format("{} on {}", counted(all.total, "slot"), counted(nodes, "node"));
  if (gang.slots > all.total) {
    return invalid(
        fmt::format("asks for {}, one a slot, but all known nodes{} have {}; ask for fewer, or let "
                    "further nodes join",
                    counted(gang.slots, "rank"), kind, whole));
  }
  return Status::invalid(
      "resources.nodes", std::to_string(gang.nodes),
      gang.nodes > nodes
          ? fmt::format("must be at most the number of known nodes{}: {}", kind, nodes)
          : fmt::format("must be a number of nodes over which {}, spread evenly, fit the known "
                        "nodes: {}",
                        counted(gang.slots, "rank"), whole));
}

}  // namespace weft
