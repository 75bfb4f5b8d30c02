#include "cluster/comm/rank_gpu.h"

#include <algorithm>
#include <utility>

#include "cluster/comm/nccl/nccl_communicator.h"
#include "cluster/comm/staged/staged_communicator.h"
#include "kernels/cuda/device.h"
#include "kernels/tensor/transfer.h"

namespace weft::comm {
namespace {

// The largest of what the ranks say.
int64_t largest(Communicator& world, int64_t own) {
  const auto host = make_caching_allocator();
  Tensor value = Tensor::full(*host, {1}, static_cast<double>(own), DType::kI64);
  world.all_reduce(value, ReduceOp::kMax);
  return static_cast<int64_t>(read_scalar(value));
}

Result<std::unique_ptr<Allocator>> memory_of(int local_rank) {
  WEFT_ASSIGN_OR_RETURN(const int gpus, cuda::device_count());
  if (gpus == 0) return fail(Code::kUnavailable, "no GPU: the driver shows none");
  return cuda::make_allocator(local_rank % gpus);
}

}  // namespace

Result<RankPlace> take_gpu(std::unique_ptr<Communicator> world, int local_rank, int local_ranks) {
  auto memory = memory_of(local_rank);
  if (largest(*world, memory ? 0 : 1) > 0) {
    if (!memory) return fail(memory.error());
    return fail(Code::kUnavailable, "another rank has no GPU");
  }
  const bool shares = local_ranks > cuda::device_count().value_or(0);
  if (largest(*world, shares ? 1 : 0) > 0) {
    return RankPlace{std::move(*memory),
                     make_staged_communicator(std::move(world), cuda::make_pinned_allocator())};
  }
  WEFT_ASSIGN_OR_RETURN(auto nccl, make_nccl_communicator(std::move(world), **memory));
  return RankPlace{std::move(*memory), std::move(nccl)};
}

}  // namespace weft::comm
