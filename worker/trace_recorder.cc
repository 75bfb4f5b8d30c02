#include "worker/trace_recorder.h"

#include <map>
#include <string_view>

#include "proto/base/activity.h"
#include "worker/clock_offset.h"

namespace weft {
namespace {

// Names become numbers; 0 is none.
class Names {
 public:
  explicit Names(proto::RankTrace& trace) : trace_(trace) { trace_.add_names(); }
  int number_of(const char* name) {
    if (name == nullptr) return 0;
    const auto [found, fresh] = numbers_.emplace(name, trace_.names_size());
    if (fresh) trace_.add_names(name);
    return found->second;
  }

 private:
  proto::RankTrace& trace_;
  std::map<std::string_view, int> numbers_;
};

}  // namespace

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
    trace_.Clear();
    trace_.set_request(static_cast<uint64_t>(agreed.request));
    trace_.set_rank(rank_.mesh.index(Axis::kWorld));
    trace_.set_clock_offset_ns(clock.offset_ns);
    trace_.set_clock_error_ns(clock.error_ns);
    trace_.set_first_step(step + 1);
    rank_.activity->start_recording();
    recording_ = true;
    return;
  }
  if (recording_ && step - trace_.first_step() + 1 >= current_.steps) send(step);
}

void TraceRecorder::finish(int64_t step) {
  if (recording_) send(step);
}

void TraceRecorder::send(int64_t step) {
  recording_ = false;
  const Activity::Recording recording = rank_.activity->take_recording();
  trace_.set_steps(static_cast<int32_t>(step - trace_.first_step() + 1));
  trace_.set_truncated(recording.truncated);
  Names names(trace_);
  for (const Span& span : recording.spans) {
    proto::TraceSpan& told = *trace_.add_spans();
    told.set_name(names.number_of(span.name));
    told.set_detail(names.number_of(span.detail));
    told.set_lane(static_cast<int32_t>(span.lane));
    told.set_number(static_cast<int32_t>(span.number));
    told.set_start_ns(span.start_ns);
    told.set_duration_ns(span.end_ns - span.start_ns);
    told.set_bytes(span.bytes);
  }
  progress_.send_trace(std::move(trace_));
  trace_ = {};
}

}  // namespace weft
