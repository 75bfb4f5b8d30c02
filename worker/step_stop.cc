#include "worker/step_stop.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "kernels/tensor/stream.h"
#include "proto/base/activity.h"

namespace weft {

StepStop::StepStop(Rank& rank, Heard heard, const Clock& clock, Seconds seconds)
    : rank_(rank), heard_(std::move(heard)), clock_(clock), seconds_(seconds) {}

void StepStop::begin() {
  asked_ = 0;
  asked_at_ = clock_.monotonic();
}

bool StepStop::after(int64_t done, int64_t count) {
  if (done + 1 >= count || done < asked_ + between_) return false;
  const Activity::Phase phase(rank_.activity, "boundary");
  if (Stream* stream = rank_.allocator->stream()) stream->synchronize();  // done, not only queued
  const int64_t each = (clock_.monotonic() - asked_at_).count() / (done - asked_);
  Tensor all = Tensor::from<int64_t>(*rank_.allocator, {2}, std::array<int64_t, 2>{heard_(), each});
  rank_.mesh.axis(Axis::kWorld).all_reduce(all, ReduceOp::kMax);
  const std::vector<int64_t> agreed = all.to_vector<int64_t>();
  const auto ns = static_cast<double>(std::max<int64_t>(1, agreed[1]));  // of a micro-batch
  between_ = std::max<int64_t>(1, static_cast<int64_t>(seconds_.ask * 1e9 / ns));
  asked_ = done;
  asked_at_ = clock_.monotonic();
  return agreed[0] >= proto::CONTROL_KIND_PAUSE &&
         static_cast<double>(count - done) * ns > seconds_.finish * 1e9;
}

}  // namespace weft
