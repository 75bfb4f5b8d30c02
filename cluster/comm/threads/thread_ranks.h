// The ranks of a mesh as threads of this process, each with its own memory, pool of one and
// communicators; on the CPU, or where `place` puts them.
//
// Thread safety: one call at a time a mesh.
#pragma once

#include <functional>

#include "cluster/comm/rank_place.h"
#include "worker/parallel/rank.h"

namespace weft {

// From the communicator of threads to a rank's place; called by every rank at once. May throw.
using PlaceRank = std::function<RankPlace(std::unique_ptr<Communicator>)>;

// Runs body on every rank and waits for all. If one throws, the others' collectives fail, and the
// exception that came first is thrown on.
void run_on_threads(MeshDegrees degrees, const std::function<void(Rank&)>& body,
                    const PlaceRank& place = {});

}  // namespace weft
