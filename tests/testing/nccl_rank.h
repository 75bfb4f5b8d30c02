// A rank of a job on a GPU of its own that talks over NCCL.
#pragma once

#include <chrono>
#include <memory>
#include <utility>

#include "cluster/comm/nccl/nccl_communicator.h"
#include "cluster/comm/rank_place.h"
#include "kernels/cuda/device.h"
#include "proto/base/status.h"

namespace weft {

// Its peers' collectives run on the same busy cores: an end that gives up on them would be the
// machine's load. Who hangs is ended by ctest.
inline constexpr comm::NcclOptions kPatient{.drain = std::chrono::minutes(10)};

inline RankPlace on_gpu(std::unique_ptr<Communicator> introduction) {
  auto memory = cuda::make_allocator(0);
  if (!memory) throw StatusError(memory.error());
  auto world = comm::make_nccl_communicator(std::move(introduction), **memory, kPatient);
  if (!world) throw StatusError(world.error());
  return {std::move(*memory), std::move(*world)};
}

}  // namespace weft
