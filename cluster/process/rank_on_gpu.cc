#include "cluster/comm/rank_gpu.h"
#include "cluster/process/rank_device.h"

namespace weft {

Result<RankPlace> place_rank(std::unique_ptr<Communicator> world, int local_rank, int local_ranks) {
  return comm::take_gpu(std::move(world), local_rank, local_ranks);
}

}  // namespace weft
