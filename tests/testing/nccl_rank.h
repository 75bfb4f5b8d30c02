// A rank of a job on a GPU of its own that talks over NCCL.
#pragma once

#include <memory>
#include <utility>

#include "cluster/comm/nccl/nccl_communicator.h"
#include "cluster/comm/rank_place.h"
#include "kernels/cuda/device.h"
#include "proto/base/status.h"

namespace weft {

inline RankPlace on_gpu(std::unique_ptr<Communicator> introduction) {
  auto memory = cuda::make_allocator(0);
  if (!memory) throw StatusError(memory.error());
  auto world = comm::make_nccl_communicator(std::move(introduction), **memory);
  if (!world) throw StatusError(world.error());
  return {std::move(*memory), std::move(*world)};
}

}  // namespace weft
