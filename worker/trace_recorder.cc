#include "worker/trace_recorder.h"

#include "proto/base/activity.h"
#include "worker/clock_offset.h"
#include "worker/trace_message.h"

namespace weft {

TraceWish TraceRecorder::wish() {
  if (rank_.activity == nullptr) return {};
  while (const auto request = progress_.take_trace_request()) {
    asked_ = {static_cast<int64_t>(request->request()), request->trace_steps()};
  }
  // Others may hear of it later: all go by rank 0's word.
  return rank_.mesh.index(Axis::kWorld) == 0 ? asked_ : TraceWish{};
}

void TraceRecorder::boundary(const TraceWish& agreed, int64_t step) {
  if (agreed.request > current_.request) {
    current_ = agreed;
    const ClockOffset clock = measure_clock(rank_);
    first_step_ = step + 1;
    rank_.activity->start_recording(
        {static_cast<uint64_t>(agreed.request), first_step_, clock.offset_ns, clock.error_ns});
    recording_ = true;
    return;
  }
  if (recording_ && step - first_step_ + 1 >= current_.steps) send(step);
}

void TraceRecorder::finish(int64_t step) {
  if (recording_) send(step);
}

void TraceRecorder::send(int64_t step) {
  recording_ = false;
  proto::RankTrace trace = trace_message(rank_.activity->take_recording(), step - first_step_ + 1);
  trace.set_rank(rank_.mesh.index(Axis::kWorld));
  progress_.send_trace(std::move(trace));
}

}  // namespace weft
