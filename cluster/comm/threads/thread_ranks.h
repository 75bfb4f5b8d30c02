// The ranks of a mesh as threads of this process, each with its own memory, pool of one and
// communicators.
//
// Thread safety: one call at a time a mesh.
#pragma once

#include <functional>

#include "worker/parallel/rank.h"

namespace weft {

// Runs body on every rank and waits for all. If one throws, the others' collectives fail, and the
// exception that came first is thrown on.
void run_on_threads(MeshDegrees degrees, const std::function<void(Rank&)>& body);

}  // namespace weft
