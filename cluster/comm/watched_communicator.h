// A communicator that tells its rank's Activity what it is in, over any transport, and that can
// compare what the ranks of a group call before they do it.
//
// The comparison goes beside the payload: each rank gathers everybody's header (call number, name,
// elements, dtype, root or kind of reduction, counts, line and op of the call). Where they differ,
// every rank of the group throws the same StatusError(kInternal), which names two ranks, both lines
// and what differs, and so does everything that the rank calls or starts afterwards. A rank that
// never comes is not found here: others wait for its header as they would for its payload
// (coordinator/launcher/watchdog.h).
//
// Thread safety, errors: as Communicator. Ownership: owns the transport; refers to the activity.
// Headers are tensors of the host, which every transport takes. Invariants: 1. calls run on the
// rank's communication thread, so that they are told and numbered in the order in which they
// run. 2. what is computed does not change.
#pragma once

#include <memory>

#include "proto/base/activity.h"
#include "worker/parallel/communicator.h"

namespace weft::comm {

struct WatchOptions {
  bool compare = false;  // two latencies more a call
};

// `world`, and through it all that is split from it.
std::unique_ptr<Communicator> watched(std::unique_ptr<Communicator> world, Activity& activity,
                                      WatchOptions options);

}  // namespace weft::comm
