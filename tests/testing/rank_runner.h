// Runs a function on several ranks, each a thread with its own allocator, pool of one and mesh,
// meeting over cluster/comm/threads.
//
// If a rank throws, the others' collectives throw kUnavailable, all are joined, and the exception
// that came first is thrown on. WEFT_CHECK still aborts the process.
#pragma once

#include <functional>

#include "cluster/comm/threads/thread_ranks.h"

namespace weft::testing {

// n ranks along the data axis.
void run_ranks(int n, const std::function<void(Rank&)>& body);
void run_mesh(MeshDegrees degrees, const std::function<void(Rank&)>& body,
              const PlaceRank& place = {});

}  // namespace weft::testing
