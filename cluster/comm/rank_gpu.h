// A rank's GPU and its way to the other ranks. Written twice: cluster/comm/nccl, and
// cluster/comm/no_nccl for programs that are built without the toolkit.
#pragma once

#include <memory>

#include "cluster/comm/rank_place.h"
#include "proto/base/status.h"

namespace weft::comm {

// A collective over `world`, a transport of the host. The rank is number `local_rank` of
// `local_ranks` of its node, and gets the GPU of that number. Where every rank has a GPU of its own
// they talk over NCCL; where on some node ranks share one, over `world` by way of pinned memory.
// Error, on every rank alike: kUnavailable naming what is missing (the toolkit in this build, the
// driver, a GPU, a library).
Result<RankPlace> take_gpu(std::unique_ptr<Communicator> world, int local_rank, int local_ranks);

}  // namespace weft::comm
