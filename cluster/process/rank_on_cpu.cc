#include "cluster/process/rank_device.h"

namespace weft {

Result<RankPlace> place_rank(std::unique_ptr<Communicator> world, const std::string&) {
  return RankPlace{make_caching_allocator(), std::move(world)};
}

}  // namespace weft
