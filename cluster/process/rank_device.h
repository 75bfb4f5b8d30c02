// Where the ranks of this program compute: on the CPU (weft-worker: rank_on_cpu.cc) or on a GPU
// (weft-worker-cuda: rank_on_gpu.cc). The program links one of them.
#pragma once

#include <string>

#include "cluster/comm/rank_place.h"
#include "proto/base/status.h"

namespace weft {

// A collective over `world`, the ranks of the attempt over MPI. gpu: the id of the one that the
// agent gives to this rank; empty: none in particular.
Result<RankPlace> place_rank(std::unique_ptr<Communicator> world, const std::string& gpu);

}  // namespace weft
