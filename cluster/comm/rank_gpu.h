// A rank's GPU and its way to the other ranks. Written twice: cluster/comm/nccl, and
// cluster/comm/no_nccl for programs that are built without the toolkit.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cluster/comm/rank_place.h"
#include "proto/base/status.h"

namespace weft::comm {

// A collective over `world`, a transport of the host. wanted: the id of the GPU that was given to
// this rank (cuda::device_ids), or empty: those ranks agree on one for each by share_out(). A rank
// that is alone needs no transport; where every one has a GPU of its own they talk over NCCL; where
// some share one, over `world` by way of pinned memory. Error, on every rank alike: kUnavailable
// naming what is missing (the toolkit in this build, the driver, a GPU, the one that is wanted, a
// library).
Result<RankPlace> take_gpu(std::unique_ptr<Communicator> world, const std::string& wanted);

// For each rank the number, among those that it sees, of its GPU: seen[rank] are their ids, at
// least one each. A GPU gets its second rank only when every other one that the rank sees has one;
// ranks that see fewer choose first. Depends on the arguments only.
std::vector<size_t> share_out(const std::vector<std::vector<std::string>>& seen);

}  // namespace weft::comm
