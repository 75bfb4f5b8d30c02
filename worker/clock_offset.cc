#include "worker/clock_offset.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace weft {
namespace {
constexpr int kRounds = 16;
}  // namespace

ClockOffset measure_clock(Rank& rank, const std::function<int64_t()>& clock_ns) {
  Communicator& world = rank.mesh.axis(Axis::kWorld);
  const auto gathered = [&](const std::vector<int64_t>& mine) {
    const auto length = std::ssize(mine);
    const std::vector<int64_t> counts(static_cast<size_t>(world.size()), length);
    Tensor all = Tensor::empty(*rank.allocator, {length * world.size()}, DType::kI64);
    world.all_gather(Tensor::from<int64_t>(*rank.allocator, {length}, mine), all, counts);
    return all.to_vector<int64_t>();
  };
  std::vector<int64_t> begins, first_begins, ends;
  for (int round = 0; round < kRounds; ++round) {
    begins.push_back(clock_ns());
    first_begins.push_back(gathered({begins.back()}).front());
    ends.push_back(clock_ns());
  }
  const std::vector<int64_t> all_ends = gathered(ends);  // rank 0's come first
  int64_t least = std::numeric_limits<int64_t>::min(), most = std::numeric_limits<int64_t>::max();
  for (size_t round = 0; round < ends.size(); ++round) {
    least = std::max(least, begins[round] - all_ends[round]);
    most = std::min(most, ends[round] - first_begins[round]);
  }
  const int64_t offset = std::clamp<int64_t>(0, least, std::max(least, most));
  return {offset, std::max(most - offset, offset - least)};
}

}  // namespace weft
