// What a rank computes in, and how it reaches the others.
#pragma once

#include <memory>

#include "worker/parallel/communicator.h"

namespace weft {

struct RankPlace {
  std::unique_ptr<Allocator> memory;
  std::unique_ptr<Communicator> world;  // may refer to the memory
};

}  // namespace weft
