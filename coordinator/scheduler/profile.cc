#include "coordinator/scheduler/profile.h"

#include <algorithm>
#include <limits>

namespace weft {

size_t Profile::cut(int64_t at_ms) {
  size_t i = 0;
  while (i + 1 < segments_.size() && segments_[i + 1].start_ms <= at_ms) ++i;
  if (segments_[i].start_ms >= at_ms) return i;
  segments_.insert(segments_.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                   Segment{at_ms, segments_[i].free});
  return i + 1;
}

void Profile::release(const std::vector<SlotCount>& counts, int64_t at_ms) {
  for (size_t i = cut(at_ms); i < segments_.size(); ++i) {
    for (const SlotCount& count : counts) {
      segments_[i].free[static_cast<size_t>(count.node)] += count.slots;
    }
  }
}

void Profile::occupy(const std::vector<SlotCount>& counts, int64_t from_ms, int64_t until_ms) {
  const size_t begin = cut(from_ms);
  const size_t end = until_ms >= kForever ? segments_.size() : cut(until_ms);
  for (size_t i = begin; i < end; ++i) {
    for (const SlotCount& count : counts) {
      segments_[i].free[static_cast<size_t>(count.node)] -= count.slots;
    }
  }
}

std::vector<int> Profile::least_free(int64_t from_ms, int64_t until_ms) const {
  std::vector<int> least(segments_.front().free.size(), std::numeric_limits<int>::max());
  for (size_t i = 0; i < segments_.size(); ++i) {
    if (segments_[i].start_ms >= until_ms) break;
    if (i + 1 < segments_.size() && segments_[i + 1].start_ms <= from_ms) continue;
    for (size_t n = 0; n < least.size(); ++n) least[n] = std::min(least[n], segments_[i].free[n]);
  }
  return least;
}

std::optional<std::vector<SlotCount>> Profile::fit(const Gang& gang, int64_t from_ms,
                                                   int64_t until_ms) const {
  std::vector<int> free = least_free(from_ms, until_ms);
  if (!nodes_.empty()) free = free_for(gang, std::move(free), nodes_);
  return fit_reachable(free, groups_, gang.slots, gang.nodes);
}

std::optional<Profile::Place> Profile::earliest(const Gang& gang, int64_t from_ms,
                                                int64_t duration_ms) const {
  std::vector<int64_t> starts{from_ms};
  for (const Segment& segment : segments_) {
    if (segment.start_ms > from_ms) starts.push_back(segment.start_ms);
  }
  for (int64_t start : starts) {
    const int64_t until = duration_ms >= kForever - start ? kForever : start + duration_ms;
    if (auto counts = fit(gang, start, until)) {
      return Place{start, std::move(*counts)};
    }
  }
  return std::nullopt;
}

}  // namespace weft
