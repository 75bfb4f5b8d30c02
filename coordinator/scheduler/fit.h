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

// As fit_gang, but never nodes of different groups together (SnapshotNode::group; empty: all are of
// one).
std::optional<std::vector<SlotCount>> fit_reachable(const std::vector<int>& free,
                                                    const std::vector<int>& groups, int slots,
                                                    int nodes);

// Whether the node's ranks compute on what the gang asks for, and a slot has the memory of a rank.
bool suits(const SnapshotNode& node, const Gang& gang);
// free, without the slots of nodes that do not suit it; of_nodes as `free`.
std::vector<int> free_for(const Gang& gang, std::vector<int> free,
                          const std::vector<SnapshotNode>& of_nodes);

// What a person wrote that made the gang as large as it is.
struct GangSource {
  std::string field = "resources.slots", value;  // value empty: the number of slots
};

// Whether any set of these nodes could hold the gang if all were empty; names the field and the
// rule. Ok where `nodes_known` is empty: nothing is known yet.
Status check_feasible(const std::vector<SnapshotNode>& nodes_known, const Gang& gang,
                      const GangSource& source = {});

}  // namespace weft
