// Where a gang fits: the choice of nodes for a number of slots.
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/scheduler/snapshot.h"
#include "proto/base/status.h"

namespace weft {

struct SlotCount {
  int node = 0;  // index into `free`
  int slots = 0;
};

// free[i]: free slots of node i. nodes > 0: exactly so many nodes, as evenly as possible (counts
// differ by at most one). nodes == 0: as few nodes as possible. Ties: the fullest node that
// suffices, then the first. Nothing: it does not fit.
std::optional<std::vector<SlotCount>> fit_gang(const std::vector<int>& free, int slots, int nodes);

// As fit_gang, but never a node with a loopback address (loopback[i]; empty: none has) together
// with one on a network: their ranks would not find each other. Prefers those on a network.
std::optional<std::vector<SlotCount>> fit_reachable(const std::vector<int>& free,
                                                    const std::vector<bool>& loopback, int slots,
                                                    int nodes);

// Whether any set of these nodes could hold the gang if all were empty; names the field and the
// rule. Ok where `nodes_known` is empty: nothing is known yet.
Status check_feasible(const std::vector<SnapshotNode>& nodes_known, int slots, int nodes);

}  // namespace weft
