#include "coordinator/launcher/trace_summary.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "proto/base/activity.h"

namespace weft {
namespace {

struct Interval {
  int64_t start = 0, end = 0;
};
using Intervals = std::vector<Interval>;  // in order, apart from each other

Intervals merged(Intervals intervals) {
  std::sort(intervals.begin(), intervals.end(),
            [](const Interval& a, const Interval& b) { return a.start < b.start; });
  Intervals out;
  for (const Interval& each : intervals) {
    if (!out.empty() && each.start <= out.back().end) {
      out.back().end = std::max(out.back().end, each.end);
    } else {
      out.push_back(each);
    }
  }
  return out;
}

Intervals common(const Intervals& a, const Intervals& b) {
  Intervals out;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const Interval both{std::max(a[i].start, b[j].start), std::min(a[i].end, b[j].end)};
    if (both.start < both.end) out.push_back(both);
    a[i].end < b[j].end ? ++i : ++j;
  }
  return out;
}

double seconds(const Intervals& intervals) {
  int64_t ns = 0;
  for (const Interval& each : intervals) ns += each.end - each.start;
  return static_cast<double>(ns) * 1e-9;
}

}  // namespace

proto::RankTraceSummary summary_of(const proto::RankTrace& trace) {
  Intervals steps, waits, collectives;
  int64_t bytes = 0;
  for (const proto::TraceSpan& span : trace.spans()) {
    const Interval interval{span.start_ns(), span.start_ns() + span.duration_ns()};
    const std::string& name = trace.names(span.name());
    if (span.lane() == static_cast<int>(Lane::kCommunication)) {
      collectives.push_back(interval);
      bytes += span.bytes();
    } else if (span.lane() == static_cast<int>(Lane::kCompute)) {
      if (name == kStepSpan) steps.push_back(interval);
      if (name == kWaitSpan) waits.push_back(interval);
    }
  }
  proto::RankTraceSummary summary;
  summary.set_rank(trace.rank());
  summary.set_node(trace.node());
  summary.set_bytes(bytes);
  summary.set_clock_offset_ns(trace.clock_offset_ns());
  summary.set_clock_error_ns(trace.clock_error_ns());
  summary.set_truncated(trace.truncated());
  if (steps.empty()) return summary;
  steps = merged(std::move(steps));
  const Intervals whole = {{steps.front().start, steps.back().end}};
  waits = common(merged(std::move(waits)), whole);
  collectives = common(merged(std::move(collectives)), whole);
  const double communication = seconds(collectives);
  summary.set_seconds(seconds(whole));
  summary.set_compute_seconds(seconds(whole) - seconds(waits));
  summary.set_communication_seconds(communication);
  if (communication > 0) {
    summary.set_hidden_share(1 - seconds(common(collectives, waits)) / communication);
  }
  return summary;
}

}  // namespace weft
