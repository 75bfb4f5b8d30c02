#include "coordinator/api/chrome_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "proto/base/activity.h"

namespace weft::api {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kEventsAPiece = 1000;

struct Thread {
  Lane lane;
  const char* name;
};
constexpr Thread kThreads[] = {{Lane::kCompute, "compute"},
                               {Lane::kCommunication, "communication"},
                               {Lane::kStorage, "checkpoint"}};

Json metadata(const char* what, int rank, int thread, Json arguments) {
  return {
      {"ph", "M"}, {"name", what}, {"pid", rank}, {"tid", thread}, {"args", std::move(arguments)}};
}

class ChromeTrace final : public BodyStream {
 public:
  explicit ChromeTrace(std::vector<proto::RankTrace> ranks) : ranks_(std::move(ranks)) {
    for (proto::RankTrace& rank : ranks_) {
      std::sort(rank.mutable_spans()->begin(), rank.mutable_spans()->end(),
                [](const proto::TraceSpan& a, const proto::TraceSpan& b) {
                  return a.start_ns() != b.start_ns() ? a.start_ns() < b.start_ns()
                                                      : a.duration_ns() > b.duration_ns();
                });
      if (!rank.spans().empty()) {
        start_ns_ = std::min(start_ns_, rank.spans(0).start_ns() - rank.clock_offset_ns());
      }
    }
  }

  Result<Next> read(std::string& out) override {
    if (!begun_) {
      begun_ = true;
      out += "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
      for (const proto::RankTrace& rank : ranks_) add_names(rank, out);
      return Next::kMore;
    }
    for (size_t written = 0; written < kEventsAPiece; ++written) {
      while (rank_ < ranks_.size() && span_ == ranks_[rank_].spans_size()) {
        ++rank_;
        span_ = 0;
      }
      if (rank_ == ranks_.size()) {
        out += "]}\n";
        return Next::kEnd;
      }
      add(event(ranks_[rank_], ranks_[rank_].spans(span_++)), out);
    }
    return Next::kMore;
  }

 private:
  void add(const Json& event, std::string& out) {
    out += first_ ? "\n" : ",\n";
    first_ = false;
    out += event.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  void add_names(const proto::RankTrace& rank, std::string& out) {
    const std::string name = rank.node().empty()
                                 ? fmt::format("rank {}", rank.rank())
                                 : fmt::format("rank {} ({})", rank.rank(), rank.node());
    add(metadata("process_name", rank.rank(), 0, {{"name", name}}), out);
    add(metadata("process_sort_index", rank.rank(), 0, {{"sort_index", rank.rank()}}), out);
    for (const Thread& thread : kThreads) {
      const int id = static_cast<int>(thread.lane) + 1;
      add(metadata("thread_name", rank.rank(), id, {{"name", thread.name}}), out);
      add(metadata("thread_sort_index", rank.rank(), id, {{"sort_index", id}}), out);
    }
  }

  Json event(const proto::RankTrace& rank, const proto::TraceSpan& span) const {
    std::string name = rank.names(span.name());
    if (span.number() >= 0) name += fmt::format(" {}", span.number());
    const std::string& detail = rank.names(span.detail());
    const bool communicates = span.lane() == static_cast<int>(Lane::kCommunication);
    if (communicates) name += " " + detail;
    Json json = {{"ph", "X"},
                 {"name", name},
                 {"cat", communicates ? "communication" : rank.names(span.name())},
                 {"pid", rank.rank()},
                 {"tid", span.lane() + 1},
                 {"ts", microseconds(span.start_ns() - rank.clock_offset_ns() - start_ns_)},
                 {"dur", microseconds(span.duration_ns())}};
    if (communicates) {
      json["args"] = {{"axis", detail}, {"bytes", span.bytes()}};
    } else if (span.bytes() > 0) {
      json["args"] = {{"bytes", span.bytes()}};
    } else if (!detail.empty()) {
      json["args"] = {{"in", detail}};
    }
    return json;
  }

  static double microseconds(int64_t ns) { return static_cast<double>(ns) / 1000; }

  std::vector<proto::RankTrace> ranks_;
  int64_t start_ns_ = std::numeric_limits<int64_t>::max();
  bool begun_ = false, first_ = true;
  size_t rank_ = 0;
  int span_ = 0;
};

}  // namespace

std::unique_ptr<BodyStream> chrome_trace(std::vector<proto::RankTrace> ranks) {
  return std::make_unique<ChromeTrace>(std::move(ranks));
}

}  // namespace weft::api
