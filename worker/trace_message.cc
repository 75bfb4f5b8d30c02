#include "worker/trace_message.h"

#include <algorithm>
#include <map>
#include <string_view>

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

proto::RankTrace trace_message(const Activity::Recording& recording, int64_t steps) {
  proto::RankTrace trace;
  trace.set_request(recording.head.request);
  trace.set_clock_offset_ns(recording.head.clock_offset_ns);
  trace.set_clock_error_ns(recording.head.clock_error_ns);
  trace.set_first_step(recording.head.first_step);
  trace.set_steps(static_cast<int32_t>(steps));
  trace.set_truncated(recording.truncated);
  Names names(trace);
  for (const Span& span : recording.spans) {
    proto::TraceSpan& told = *trace.add_spans();
    told.set_name(names.number_of(span.name));
    told.set_detail(names.number_of(span.detail));
    told.set_lane(static_cast<int32_t>(span.lane));
    told.set_number(static_cast<int32_t>(span.number));
    told.set_start_ns(span.start_ns);
    told.set_duration_ns(span.end_ns - span.start_ns);
    told.set_bytes(span.bytes);
  }
  return trace;
}

std::optional<proto::RankTrace> trace_so_far(const Activity& activity, uint64_t request) {
  const auto recording = activity.recording_so_far();
  if (!recording || recording->head.request != request) return std::nullopt;
  const auto& spans = recording->spans;
  const auto steps = std::count_if(spans.begin(), spans.end(), [](const Span& span) {
    return std::string_view(span.name) == kStepSpan;
  });
  proto::RankTrace trace = trace_message(*recording, steps);
  trace.set_cut(true);
  return trace;
}

}  // namespace weft
