#include "cluster/comm/nccl/nccl_library.h"

#include "kernels/cuda/load_library.h"

namespace weft::comm {
namespace {

Result<Nccl> load() {
  WEFT_ASSIGN_OR_RETURN(cuda::LoadedLibrary library,
                        cuda::LoadedLibrary::open({"libnccl.so.2", "libnccl.so"}));
  Nccl table{};
  library.find(table.get_unique_id, "ncclGetUniqueId");
  library.find(table.init_rank, "ncclCommInitRank");
  library.find(table.destroy, "ncclCommDestroy");
  library.find(table.abort, "ncclCommAbort");
  library.find(table.async_error, "ncclCommGetAsyncError");
  library.find(table.error_text, "ncclGetErrorString");
  library.find(table.group_start, "ncclGroupStart");
  library.find(table.group_end, "ncclGroupEnd");
  library.find(table.all_reduce, "ncclAllReduce");
  library.find(table.all_gather, "ncclAllGather");
  library.find(table.reduce_scatter, "ncclReduceScatter");
  library.find(table.broadcast, "ncclBroadcast");
  library.find(table.send, "ncclSend");
  library.find(table.receive, "ncclRecv");
  WEFT_RETURN_IF_ERROR(library.complete());
  return table;
}

}  // namespace

Result<const Nccl*> nccl() {
  static const Result<Nccl> loaded = load();
  if (!loaded) return fail(loaded.error());
  return &*loaded;
}

}  // namespace weft::comm
