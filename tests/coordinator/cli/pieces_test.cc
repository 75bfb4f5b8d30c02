// Event parser, settings, daemons.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "coordinator/cli/api_client.h"
#include "coordinator/cli/daemon.h"
#include "coordinator/cli/event_parser.h"
#include "coordinator/cli/settings.h"

namespace weft::cli {
namespace {

TEST(EventParser, TakesEventsCutAnywhere) {
  const std::string text =
      ": comment\n\nid: 7\nevent: metric\ndata: {\"a\":1}\n\n"
      "data: one\r\ndata: two\r\n\r\nid: 8\n\n";
  for (size_t cut = 1; cut < text.size(); ++cut) {
    EventParser parser;
    std::vector<ServerEvent> events;
    const auto take = [&](const ServerEvent& event) {
      events.push_back(event);
      return Status();
    };
    ASSERT_TRUE(parser.feed(text.substr(0, cut), take).ok());
    ASSERT_TRUE(parser.feed(text.substr(cut), take).ok());
    ASSERT_EQ(events.size(), 2U) << cut;
    EXPECT_EQ(events[0].id, "7");
    EXPECT_EQ(events[0].type, "metric");
    EXPECT_EQ(events[0].data, "{\"a\":1}");
    EXPECT_EQ(events[1].data, "one\ntwo");
  }
}

TEST(Settings, ServerText) {
  EXPECT_EQ(parse_server("host:99")->port, 99);
  EXPECT_EQ(parse_server("http://host:99/")->host, "host");
  EXPECT_EQ(parse_server("host")->port, 7070);
  EXPECT_EQ(parse_server("[::1]:5")->host, "::1");
  for (const char* bad : {"", "https://h:1", "h:0", "h:x", "h:70000", "h/p:1", "[::1"}) {
    EXPECT_FALSE(parse_server(bad).has_value()) << bad;
  }
}

class FolderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "weft-cli-XXXXXX";
    folder_ = ::mkdtemp(name.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

TEST_F(FolderTest, TheDataFolderNamesServerAndToken) {
  Settings settings;
  settings.data = folder_;
  const auto none = find_endpoint(settings);
  ASSERT_FALSE(none.has_value());
  EXPECT_NE(none.error().message().find("weft up"), std::string::npos);
  ASSERT_TRUE(
      write_text_file(folder_ + "/cluster.json", R"({"address":"0.0.0.0","port":1234})", 0644)
          .ok());
  EXPECT_FALSE(find_endpoint(settings).has_value());  // no token yet
  ASSERT_TRUE(write_text_file(folder_ + "/token", "secret-of-the-cluster\n", 0600).ok());
  const auto found = find_endpoint(settings);
  ASSERT_TRUE(found.has_value()) << found.error().to_string();
  EXPECT_EQ(found->host, "127.0.0.1");
  EXPECT_EQ(found->port, 1234);
  EXPECT_EQ(found->token, "secret-of-the-cluster");
  settings.token_file = folder_ + "/other";
  EXPECT_FALSE(find_endpoint(settings).has_value());  // what is named is used, or nothing
  ASSERT_TRUE(write_text_file(settings.token_file, "another-token\n", 0600).ok());
  EXPECT_EQ(find_endpoint(settings)->token, "another-token");
  settings.token_file.clear();
  settings.server = "elsewhere:77";
  EXPECT_EQ(find_endpoint(settings)->host, "elsewhere");
}

TEST_F(FolderTest, DaemonsAreFoundAgainAndStopped) {
  const auto started = start_daemon({"/bin/sleep", "1000"}, folder_ + "/log");
  ASSERT_TRUE(started.has_value()) << started.error().to_string();
  ASSERT_TRUE(write_pid_file(folder_ + "/pid", *started).ok());
  EXPECT_EQ(read_pid_file(folder_ + "/pid").pid, started->pid);
  // The same number with another start time is another program.
  ASSERT_TRUE(write_pid_file(folder_ + "/pid", {started->pid, started->started - 1}).ok());
  EXPECT_EQ(read_pid_file(folder_ + "/pid").pid, 0);
  EXPECT_TRUE(stop_processes({*started}, 10));
  EXPECT_FALSE(is_alive(*started));
  const auto missing = start_daemon({folder_ + "/nothing"}, folder_ + "/log");
  ASSERT_FALSE(missing.has_value());
  EXPECT_NE(missing.error().message().find("No such file"), std::string::npos);
}

TEST_F(FolderTest, TailsAndPorts) {
  ASSERT_TRUE(write_text_file(folder_ + "/log", "a\nb\nc\n", 0644).ok());
  EXPECT_EQ(file_tail(folder_ + "/log", 2), "b\nc\n");
  EXPECT_EQ(file_tail(folder_ + "/log", 9), "a\nb\nc\n");
  EXPECT_EQ(file_tail(folder_ + "/none", 9), "");
  const int port = free_port("127.0.0.1", 20000);
  EXPECT_EQ(listen_error("127.0.0.1", port), 0);
  EXPECT_EQ(listen_error("192.0.2.1", port), EADDRNOTAVAIL);  // reserved for documents
  EXPECT_EQ(check_reachable("127.0.0.1", port, 1000).code(), Code::kUnavailable);
  EXPECT_NE(check_reachable("no-such-host.invalid", port, 1000).message().find("no-such-host"),
            std::string::npos);
}

TEST(Encoding, PathsAndQueries) { EXPECT_EQ(encoded("a/b c%\xc3\xa4~"), "a%2Fb%20c%25%C3%A4~"); }

}  // namespace
}  // namespace weft::cli
