// How far the ranks' monotonic clocks are apart.
//
// Thread safety: the rank's compute thread; a collective over the world.
#pragma once

#include <cstdint>
#include <functional>

#include "proto/base/activity.h"
#include "worker/parallel/rank.h"

namespace weft {

// A time of rank 0's clock and `offset_ns` is the same time of this rank's, `error_ns` off at most.
struct ClockOffset {
  int64_t offset_ns = 0, error_ns = 0;
};

// From rounds of an all-gather: what rank 0 hands over lies before this rank's end of the round,
// and what this rank hands over before rank 0's end (Cristian 1989, with the narrowest bounds of
// all rounds). Ranks of one machine share a clock, so 0 is taken where the bounds allow it.
ClockOffset measure_clock(Rank& rank,
                          const std::function<int64_t()>& clock_ns = Activity::clock_ns);

}  // namespace weft
