// All that a plan depends on, as plain values.
// Thread safety: values. Invariants: 1. Slots of a node are 0 .. slots-1. 2. `holders` never
// overlap.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace weft {

struct NodeSlots {
  std::string node;
  std::vector<int> slots;
};

struct SnapshotNode {
  std::string name;
  int slots = 0;
  bool usable = false;  // connected, lease running; else only counted for what is feasible at all
  std::string loopback = {};  // its address, where no other host reaches it; empty: they do
  bool gpu = false;           // its ranks compute on GPUs

  // Nodes whose ranks could not work together are of different groups; smaller ones are preferred.
  int group() const { return (gpu ? 0 : 2) + (loopback.empty() ? 0 : 1); }
};

// What occupies slots now: an active attempt, or one that is over but whose processes may still
// live.
struct SlotHolder {
  std::string job;
  std::vector<NodeSlots> placement;
  int64_t ends_ms = 0;  // latest end; 0: unknown (no time limit)
};

struct PendingJob {
  std::string job;
  int attempt = 0;  // the last one that was started
  int slots = 1;
  int nodes = 0;  // exactly so many; 0: as few as possible
  int priority = 0;
  int64_t submit_sequence = 0;
  int64_t eligible_ms = 0;           // not before
  int64_t time_limit_seconds = 0;    // 0: none
  std::optional<bool> gpu = {};      // on such nodes only; nothing: either
  std::vector<std::string> leaving;  // nodes where its last attempt may still have processes
};

struct Snapshot {
  std::vector<SnapshotNode> nodes;  // every node that ever joined
  std::vector<SlotHolder> holders;
  std::vector<PendingJob> pending;
  bool draining = false;  // nothing is started (drain.h)
};

}  // namespace weft
