// NCCL as a table of its functions: loaded when it is first wanted, and given by the tests' harness
// in place of the library.
//
// Thread safety: nccl() from any thread; the functions as NVIDIA says. Ownership: the library stays
// loaded.
#pragma once

#include <nccl.h>

#include "proto/base/status.h"

namespace weft::comm {

struct Nccl {
  decltype(&::ncclGetUniqueId) get_unique_id;
  decltype(&::ncclCommInitRank) init_rank;
  decltype(&::ncclCommDestroy) destroy;
  decltype(&::ncclCommAbort) abort;
  decltype(&::ncclCommGetAsyncError) async_error;
  decltype(&::ncclGetErrorString) error_text;
  decltype(&::ncclGroupStart) group_start;
  decltype(&::ncclGroupEnd) group_end;
  decltype(&::ncclAllReduce) all_reduce;
  decltype(&::ncclAllGather) all_gather;
  decltype(&::ncclReduceScatter) reduce_scatter;
  decltype(&::ncclBroadcast) broadcast;
  decltype(&::ncclSend) send;
  decltype(&::ncclRecv) receive;
};

// Error: kUnavailable, naming the library or the function that is missing.
Result<const Nccl*> nccl();

}  // namespace weft::comm
