// Collectives on a GPU's tensors over a transport that knows the host's only: each tensor goes by
// way of pinned memory. For ranks that share one GPU, which NCCL does not serve. Every call waits
// for the tensor's stream.
//
// Thread safety and ownership: as Communicator; owns the transport. Tensors of the host go straight
// to it.
#pragma once

#include <memory>

#include "worker/parallel/communicator.h"

namespace weft::comm {

// pinned: memory of the host that the GPU reads without a detour (cuda::make_pinned_allocator).
std::unique_ptr<Communicator> make_staged_communicator(std::unique_ptr<Communicator> transport,
                                                       std::shared_ptr<Allocator> pinned);

}  // namespace weft::comm
