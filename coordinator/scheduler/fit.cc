#include "coordinator/scheduler/fit.h"

#include <algorithm>
#include <numeric>

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

}  // namespace

std::optional<std::vector<SlotCount>> fit_gang(const std::vector<int>& free, int slots, int nodes) {
  return nodes > 0 ? fit_evenly(free, slots, nodes) : fit_few(free, slots);
}

std::optional<std::vector<SlotCount>> fit_reachable(const std::vector<int>& free,
                                                    const std::vector<bool>& loopback, int slots,
                                                    int nodes) {
  auto whole = fit_gang(free, slots, nodes);
  if (!whole || loopback.empty()) return whole;
  const auto is_loopback = [&](const SlotCount& count) {
    return static_cast<bool>(loopback[static_cast<size_t>(count.node)]);
  };
  const auto first = is_loopback(whole->front());
  if (std::all_of(whole->begin(), whole->end(),
                  [&](const SlotCount& count) { return is_loopback(count) == first; })) {
    return whole;
  }
  for (const bool wanted : {false, true}) {
    std::vector<int> part = free;
    for (size_t i = 0; i < part.size(); ++i) {
      if (loopback[i] != wanted) part[i] = 0;
    }
    if (auto found = fit_gang(part, slots, nodes)) return found;
  }
  return std::nullopt;
}

Status check_feasible(const std::vector<SnapshotNode>& nodes_known, int slots, int nodes) {
  if (nodes > slots) {
    return Status::invalid("resources.nodes", std::to_string(nodes),
                           "must be at most resources.slots (" + std::to_string(slots) + ")");
  }
  if (nodes_known.empty()) return {};
  std::vector<int> capacity;
  for (const SnapshotNode& node : nodes_known) capacity.push_back(node.slots);
  if (fit_gang(capacity, slots, nodes)) return {};
  const int total = std::accumulate(capacity.begin(), capacity.end(), 0);
  const std::string whole = std::to_string(total) + " on " + std::to_string(capacity.size()) +
                            (capacity.size() == 1 ? " node" : " nodes");
  if (slots > total) {
    return Status::invalid("resources.slots", std::to_string(slots),
                           "must be at most the slots of all known nodes: " + whole);
  }
  if (nodes > static_cast<int>(capacity.size())) {
    return Status::invalid(
        "resources.nodes", std::to_string(nodes),
        "must be at most the number of known nodes: " + std::to_string(capacity.size()));
  }
  return Status::invalid("resources.nodes", std::to_string(nodes),
                         std::to_string(slots) + " slots spread evenly over so many nodes do not " +
                             "fit the known nodes: " + whole);
}

}  // namespace weft
