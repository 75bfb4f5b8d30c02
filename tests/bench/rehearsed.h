// A communicator that can leave its transfers out, and repeat them alone: what a step costs without
// communication, and communication without the step.
//
// Thread safety: as Communicator; the mode changes while nothing is under way. Ownership: a
// rehearsed communicator owns the one that it wraps; what splits off it shares its Rehearsal and
// must outlive the rehearsals' replays.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "worker/parallel/communicator.h"

namespace weft::bench {

// What the communicators of one world have in common.
struct Rehearsal {
  // Else every collective returns at once and leaves its results as they are, gathered integers
  // aside, of which every rank's are as this one's.
  bool transfers = true;
  bool records = false;
  std::mutex mutex;                                  // of the log
  std::vector<std::function<void(Allocator&)>> log;  // the collectives of the rank, in order
};

std::unique_ptr<Communicator> rehearsed(std::unique_ptr<Communicator> inner,
                                        std::shared_ptr<Rehearsal> rehearsal);

}  // namespace weft::bench
