// The communicator of ranks whose tensors are on GPUs, over NCCL; tensors of the host go over the
// communicator that introduced the ranks to each other (MPI, or threads), which also splits and
// meets at barriers.
//
// Collectives of a rank are queued on one stream beside the tensors' own, in their order: each
// starts when the work that was queued on the tensors' stream before is done, and what is queued
// there later waits for it; of those that were started, what is queued after Pending::wait().
// Nothing waits on the host.
//
// Thread safety and ownership: as Communicator; owns the introducing communicator, its stream and
// its place in NCCL. The allocator outlives it.
// Invariants: 1. a sum of half types is taken in fp32 and rounded once. 2. after a lost peer or any
// error of NCCL the communicator is aborted: whoever waits for its stream gets
// StatusError(kUnavailable), and so does every later call. 3. its end waits for its collectives for
// a bounded time only, and aborts where they do not come to theirs.
// A NaN in kMax and kMin is NCCL's business.
#pragma once

#include <chrono>
#include <memory>

#include "proto/base/status.h"
#include "worker/parallel/communicator.h"

namespace weft::comm {

struct NcclOptions {
  std::chrono::milliseconds drain{
      30'000};  // so long the end of a communicator waits for its stream
};

// A collective over `introduction`. memory: a GPU's, one rank a GPU. Error: kUnavailable where NCCL
// is missing or refuses.
Result<std::unique_ptr<Communicator>> make_nccl_communicator(
    std::unique_ptr<Communicator> introduction, Allocator& memory, const NcclOptions& options = {});

}  // namespace weft::comm
