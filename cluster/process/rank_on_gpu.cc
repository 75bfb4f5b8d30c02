#include "cluster/comm/rank_gpu.h"
#include "cluster/process/rank_device.h"

namespace weft {

Result<RankPlace> place_rank(std::unique_ptr<Communicator> world, const std::string& gpu) {
  return comm::take_gpu(std::move(world), gpu);
}

}  // namespace weft
