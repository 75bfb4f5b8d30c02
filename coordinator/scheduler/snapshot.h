// All that a plan depends on, as plain values.
// Thread safety: values. Invariants: 1. Slots of a node are 0 .. slots-1. 2. `holders` never
// overlap.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace weft {

struct NodeSlots {
  std::string node;
  std::vector<int> slots;
};

// What each rank of a gang takes of memory, in bytes; 0: that is not known, and holds anywhere.
struct RankMemory {
  int64_t host = 0;      // of the node's, where it computes on the CPU
  int64_t gpu = 0;       // of its GPU's, where it computes on one
  int64_t gpu_host = 0;  // of the node's beside that
  auto operator<=>(const RankMemory&) const = default;
};

// What starts together or not at all.
struct Gang {
  int slots = 1;
  int nodes = 0;                 // exactly so many; 0: as few as possible
  std::optional<bool> gpu = {};  // on such nodes only; nothing: either
  RankMemory memory = {};
  auto operator<=>(const Gang&) const = default;
};

struct SnapshotNode {
  std::string name;
  int slots = 0;
  bool usable = false;  // connected, lease running; else only counted for what is feasible at all
  std::string loopback = {};  // its address, where no other host reaches it; empty: they do
  bool gpu = false;           // its ranks compute on GPUs
  int64_t slot_bytes = 0;     // of memory for a rank; 0: not known
  int64_t gpu_bytes = 0;      // of a GPU's memory for a rank; 0: not known

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

struct PendingJob : Gang {
  std::string job;
  int attempt = 0;  // the last one that was started
  int priority = 0;
  int64_t submit_sequence = 0;
  int64_t eligible_ms = 0;           // not before
  int64_t time_limit_seconds = 0;    // 0: none
  std::vector<std::string> leaving;  // nodes where its last attempt may still have processes
};

struct Snapshot {
  std::vector<SnapshotNode> nodes;  // every node that ever joined
  std::vector<SlotHolder> holders;
  std::vector<PendingJob> pending;
  bool draining = false;  // nothing is started (drain.h)
};

}  // namespace weft
