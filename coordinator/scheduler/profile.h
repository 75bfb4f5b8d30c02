// Free slots of each node over time: what is held now with its latest end, and reservations of jobs
// that wait. Times in milliseconds; the last segment lasts for ever.
// Thread safety: not; a value of one plan.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "coordinator/scheduler/fit.h"

namespace weft {

class Profile {
 public:
  static constexpr int64_t kForever = int64_t{1} << 60;

  // of_nodes: as `free`; empty: nothing keeps any two of them apart.
  Profile(int64_t now_ms, std::vector<int> free, std::vector<SnapshotNode> of_nodes = {})
      : segments_{{now_ms, std::move(free)}}, nodes_(std::move(of_nodes)) {
    for (const SnapshotNode& node : nodes_) groups_.push_back(node.group());
  }

  void release(const std::vector<SlotCount>& counts, int64_t at_ms);  // from then on
  void occupy(const std::vector<SlotCount>& counts, int64_t from_ms, int64_t until_ms);
  // Least free slots of each node in [from, until).
  std::vector<int> least_free(int64_t from_ms, int64_t until_ms) const;

  struct Place {
    int64_t start_ms;
    std::vector<SlotCount> counts;
  };
  // The earliest start, not before `from_ms`, at which the gang fits for `duration_ms`.
  std::optional<Place> earliest(const Gang& gang, int64_t from_ms, int64_t duration_ms) const;
  // Where it fits in [from, until); see fit_reachable.
  std::optional<std::vector<SlotCount>> fit(const Gang& gang, int64_t from_ms,
                                            int64_t until_ms) const;

 private:
  struct Segment {
    int64_t start_ms;
    std::vector<int> free;
  };
  size_t cut(int64_t at_ms);  // index of the segment that starts there

  std::vector<Segment> segments_;
  std::vector<SnapshotNode> nodes_;
  std::vector<int> groups_;
};

}  // namespace weft
