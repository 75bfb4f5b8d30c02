// The trace's JSON against the Trace Event Format's rules and those of chrome_trace.h.
#include "coordinator/api/chrome_trace.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "proto/base/activity.h"

namespace weft::api {
namespace {

using Json = nlohmann::json;

void add(proto::RankTrace& trace, int name, int detail, Lane lane, int number, int64_t start_us,
         int64_t us, int64_t bytes = 0) {
  proto::TraceSpan& span = *trace.add_spans();
  span.set_name(name);
  span.set_detail(detail);
  span.set_lane(static_cast<int>(lane));
  span.set_number(number);
  span.set_start_ns(trace.clock_offset_ns() + start_us * 1000);
  span.set_duration_ns(us * 1000);
  span.set_bytes(bytes);
}

// Spans in the order of their ends, as ranks tell them.
proto::RankTrace rank(int number, int64_t clock_offset_ns) {
  proto::RankTrace trace;
  trace.set_rank(number);
  trace.set_node("n\"" + std::to_string(number));  // must be escaped
  trace.set_clock_offset_ns(clock_offset_ns);
  for (const char* name : {"", "step", "forward", "layer", "all_reduce", "tensor", "chunk"}) {
    trace.add_names(name);
  }
  add(trace, 3, 2, Lane::kCompute, 0, 1000, 40);
  add(trace, 4, 5, Lane::kCommunication, -1, 1040, 30, 4096);
  add(trace, 3, 2, Lane::kCompute, 1, 1040, 40);
  add(trace, 2, 1, Lane::kCompute, -1, 1000, 90);
  add(trace, 6, 0, Lane::kStorage, -1, 1020, 50, 77);
  add(trace, 1, 0, Lane::kCompute, 12, 1000, 100);
  return trace;
}

Json read(std::vector<proto::RankTrace> ranks) {
  const auto stream = chrome_trace(std::move(ranks));
  std::string text;
  while (true) {
    const auto next = stream->read(text);
    EXPECT_TRUE(next);
    if (!next || *next == BodyStream::Next::kEnd) return Json::parse(text);
  }
}

TEST(ChromeTrace, IsBalancedMonotonicAndNamed) {
  const Json json = read({rank(0, 0), rank(1, 5'000'000'000)});
  std::set<std::pair<int, int>> named;
  std::map<std::pair<int, int>, std::vector<std::pair<double, double>>> open;  // start, end
  std::map<std::pair<int, int>, double> last;
  int events = 0;
  for (const Json& event : json.at("traceEvents")) {
    const std::pair<int, int> track{event.at("pid"), event.at("tid")};
    if (event.at("ph") == "M") {
      if (event.at("name") == "thread_name") named.insert(track);
      continue;
    }
    ASSERT_EQ(event.at("ph"), "X");
    ++events;
    EXPECT_TRUE(named.contains(track)) << event;
    const double start = event.at("ts"), end = start + event.at("dur").get<double>();
    EXPECT_GE(start, 0) << event;
    EXPECT_GE(start, last[track]) << event;
    last[track] = start;
    auto& stack = open[track];
    while (!stack.empty() && stack.back().second <= start) stack.pop_back();
    EXPECT_TRUE(stack.empty() || end <= stack.back().second) << "crosses its parent: " << event;
    stack.emplace_back(start, end);
  }
  EXPECT_EQ(events, 12);
}

TEST(ChromeTrace, TakesTheClocksApart) {
  const Json json = read({rank(0, 0), rank(1, 5'000'000'000)});
  std::map<int, Json> reduces, processes;
  for (const Json& event : json.at("traceEvents")) {
    if (event.at("name") == "all_reduce tensor") reduces[event.at("pid")] = event;
    if (event.at("name") == "process_name") processes[event.at("pid")] = event;
  }
  for (const int number : {0, 1}) {
    EXPECT_EQ(reduces.at(number).at("ts"), 40.0);
    EXPECT_EQ(reduces.at(number).at("dur"), 30.0);
    EXPECT_EQ(reduces.at(number).at("args").at("bytes"), 4096);
    EXPECT_EQ(reduces.at(number).at("tid"), 2);
    EXPECT_EQ(processes.at(number).at("args").at("name"),
              "rank " + std::to_string(number) + " (n\"" + std::to_string(number) + ")");
  }
  EXPECT_TRUE(read({}).at("traceEvents").empty());
}

}  // namespace
}  // namespace weft::api
