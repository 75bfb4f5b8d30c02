// Live streams over a real service: nothing missed, nothing twice, an end, and no harm by slow
// readers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "coordinator/cli/event_parser.h"
#include "tests/coordinator/api/served.h"

namespace weft::api {
namespace {

using cli::EventParser;
using cli::ServerEvent;
using testing::ElementsAre;

// Reads a stream's events from a raw connection, undoing the chunked encoding.
class StreamReader {
 public:
  StreamReader(const Served& served, const std::string& path, const std::string& last_id = "")
      : client_(served.server->port()) {
    client_.send(served.head("GET", path,
                             "Accept: text/event-stream\r\n" +
                                 (last_id.empty() ? "" : "Last-Event-ID: " + last_id + "\r\n")) +
                 "\r\n");
    EXPECT_TRUE(client_.read_until("\r\n\r\n"));
    EXPECT_NE(client_.received().find("200 OK"), std::string::npos) << client_.received();
    at_ = client_.received().find("\r\n\r\n") + 4;
  }
  // Until `count` events have come, or the stream's end.
  std::vector<ServerEvent> read(size_t count) {
    while (events_.size() < count && !over_) {
      take_chunks();
      if (events_.size() < count && !over_ && !client_.read_some()) break;
    }
    return events_;
  }

 private:
  void take_chunks() {
    while (!over_) {
      const std::string& all = client_.received();
      const size_t line = all.find("\r\n", at_);
      if (line == std::string::npos) return;
      const size_t size = std::strtoul(&all[at_], nullptr, 16);
      if (all.size() < line + 2 + size + 2) return;
      EXPECT_TRUE(parser_
                      .feed(std::string_view(all).substr(line + 2, size),
                            [&](const ServerEvent& event) {
                              events_.push_back(event);
                              return Status();
                            })
                      .ok());
      at_ = line + 2 + size + 2;
      over_ = size == 0;
    }
  }
  RawClient client_;
  EventParser parser_;
  std::vector<ServerEvent> events_;
  size_t at_ = 0;
  bool over_ = false;
};

std::vector<std::string> ids(const std::vector<ServerEvent>& events) {
  std::vector<std::string> out;
  for (const ServerEvent& event : events) out.push_back(event.id.empty() ? event.type : event.id);
  return out;
}

TEST(Streams, EventsArriveResumeAndEnd) {
  Served served;
  const std::string id = served.submit();
  StreamReader reader(served, "jobs/" + id + "/events");
  EXPECT_THAT(ids(reader.read(1)), ElementsAre("1"));
  served.set_state(id, proto::JOB_STATE_RUNNING);
  EXPECT_THAT(ids(reader.read(2)), ElementsAre("1", "2"));
  StreamReader resumed(served, "jobs/" + id + "/events", "1");
  EXPECT_THAT(ids(resumed.read(1)), ElementsAre("2"));
  served.set_state(id, proto::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(ids(reader.read(9)), ElementsAre("1", "2", "3", "end"));
  EXPECT_THAT(ids(resumed.read(9)), ElementsAre("2", "3", "end"));
  StreamReader late(served, "jobs/" + id + "/events", "3");
  EXPECT_THAT(ids(late.read(9)), ElementsAre("end"));
}

TEST(Streams, ManyMetricsComeInOrderOnceEach) {
  Served served;
  const std::string id = served.submit();
  served.set_state(id, proto::JOB_STATE_RUNNING);
  StreamReader reader(served, "jobs/" + id + "/metrics");
  std::thread writer([&] {
    for (int i = 0; i < 20; ++i) served.add_metrics(id, 50);
    served.set_state(id, proto::JOB_STATE_SUCCEEDED);
  });
  const std::vector<ServerEvent> events = reader.read(1001);
  writer.join();
  ASSERT_EQ(events.size(), 1001U);
  for (size_t i = 0; i < 1000; ++i) ASSERT_EQ(events[i].id, std::to_string(i + 1));
}

TEST(Streams, AReaderThatDoesNotReadHoldsNobodyUp) {
  Served served;
  const std::string id = served.submit();
  served.set_state(id, proto::JOB_STATE_RUNNING);
  StreamReader stuck(served, "jobs/" + id + "/metrics");
  for (int i = 0; i < 200; ++i) served.add_metrics(id, 500);
  EXPECT_EQ(served.ask("GET", "jobs/" + id).status, 200);
  served.set_state(id, proto::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(stuck.read(100001).size(), 100001U);  // and yet it loses nothing
}

TEST(Streams, LogsGoOnWithTheNextAttempt) {
  Served served;
  const std::string id = served.submit();
  served.set_state(id, proto::JOB_STATE_RUNNING, 1);
  ASSERT_TRUE(served.store->append_log(id, 1, 0, 0, "first\n").has_value());
  StreamReader reader(served, "jobs/" + id + "/logs");
  EXPECT_THAT(ids(reader.read(1)), ElementsAre("1:6"));
  ASSERT_TRUE(served.store->append_log(id, 1, 0, 6, "more\n").has_value());
  EXPECT_THAT(ids(reader.read(2)), ElementsAre("1:6", "1:11"));
  served.set_state(id, proto::JOB_STATE_RUNNING, 2);
  ASSERT_TRUE(served.store->append_log(id, 2, 0, 0, "second\n").has_value());
  EXPECT_THAT(ids(reader.read(3)), ElementsAre("1:6", "1:11", "2:7"));
  StreamReader resumed(served, "jobs/" + id + "/logs", "1:6");
  EXPECT_THAT(ids(resumed.read(2)), ElementsAre("1:11", "2:7"));
  served.set_state(id, proto::JOB_STATE_FAILED, 2);
  EXPECT_THAT(ids(reader.read(9)), ElementsAre("1:6", "1:11", "2:7", "end"));
}

TEST(Streams, ADeletedJobEndsItsStreams) {
  Served served;
  const std::string id = served.submit();
  StreamReader reader(served, "jobs/" + id + "/checkpoints");
  EXPECT_EQ(served.ask("POST", "jobs/" + id + "/cancel").status, 200);
  EXPECT_THAT(ids(reader.read(1)), ElementsAre("end"));
}

TEST(Streams, BadPlacesAreRefused) {
  Served served;
  const std::string id = served.submit();
  const std::string accept = "Accept: text/event-stream\r\nLast-Event-ID: ";
  for (const char* kind : {"events", "metrics", "logs", "checkpoints"}) {
    EXPECT_EQ(served.ask("GET", "jobs/" + id + "/" + kind, "", accept + "x\r\n").status, 400)
        << kind;
    EXPECT_EQ(
        served.ask("GET", std::string("jobs/job-x/") + kind, "", accept + "1\r\n").status / 100, 4);
  }
}

}  // namespace
}  // namespace weft::api
