// What a rank computes in, and how it reaches the others.
#pragma once

#include <memory>
#include <string>

#include "worker/parallel/communicator.h"

namespace weft {

struct RankPlace {
  std::unique_ptr<Allocator> memory;
  std::unique_ptr<Communicator> world;  // may refer to the memory
  std::string description = {};         // of both, for the rank's log; empty: as always
};

}  // namespace weft
