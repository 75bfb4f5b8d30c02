// Event parser, settings, daemons.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "coordinator/cli/api_client.h"
#include "coordinator/cli/daemon.h"
#include "coordinator/cli/event_parser.h"
#include "coordinator/cli/http_client.h"
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

// With a home of its own and no variable that names a server.
class ConfigFileTest : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    for (const char* name : {"WEFT_SERVER", "WEFT_TOKEN_FILE", "WEFT_DATA"}) ::unsetenv(name);
    ::setenv("HOME", folder_.c_str(), 1);
    std::filesystem::create_directories(folder_ + "/.config/weft");
    for (const char* name : {"/token", "/.config/weft/near"}) {
      ASSERT_TRUE(write_text_file(folder_ + name, "secret-of-the-cluster\n", 0600).ok());
    }
  }
  Result<Endpoint> found_with(const std::string& text) {
    EXPECT_TRUE(write_text_file(folder_ + "/.config/weft/config.yaml", text, 0600).ok());
    return find_endpoint(Settings());
  }
};

TEST_F(ConfigFileTest, NamesServerAndToken) {
  for (const char* token : {"~/token", "near", "../../token"}) {
    const auto found = found_with("server: there:71\ntoken_file: " + std::string(token) + "\n");
    ASSERT_TRUE(found.has_value()) << found.error().to_string();
    EXPECT_EQ(found->host, "there");
    EXPECT_EQ(found->token, "secret-of-the-cluster");
  }
  for (const char* nothing : {"", "\n", "# server: there:71\n  # more\n"}) {
    EXPECT_NE(found_with(nothing).error().message().find("no coordinator known"), std::string::npos)
        << nothing;
  }
}

TEST_F(ConfigFileTest, WhatCannotBeUnderstoodIsToldWithItsPlace) {
  const std::string path = folder_ + "/.config/weft/config.yaml";
  const std::pair<const char*, const char*> wrong[] = {
      {"- server\n", "must hold the keys server and token_file"},
      {"there:71\n", "must hold the keys server and token_file"},
      {"server: [there]\n", "server must be a text"},
      {"server:\n", "server must be a text"},
      {"\nserver: there:99999\n", "with a port from 1 to 65535 (got there:99999) (line 2)"},
      {"token: x\n", "must be server or token_file"},
  };
  for (const auto& [text, rule] : wrong) {
    const auto found = found_with(text);
    ASSERT_FALSE(found.has_value()) << text;
    const std::string told = found.error().to_string();
    EXPECT_TRUE(told.starts_with(path)) << told;
    EXPECT_NE(told.find(rule), std::string::npos) << told;
  }
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  EXPECT_NE(find_endpoint(Settings()).error().message().find(path), std::string::npos);
  std::filesystem::remove(path);
  ::setenv("WEFT_SERVER", "there:99999", 1);
  EXPECT_TRUE(find_endpoint(Settings()).error().to_string().starts_with("WEFT_SERVER must be"));
  ::unsetenv("WEFT_SERVER");
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

// Takes one connection on loopback, answers nothing, and hands back what it was asked.
std::string ask_one_that_hangs_up(const std::string& host, int family, Status* status) {
  const int listener = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 six{.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
  sockaddr_in four{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  void* const any = family == AF_INET6 ? static_cast<void*>(&six) : &four;
  socklen_t size = family == AF_INET6 ? sizeof six : sizeof four;
  auto* const address = static_cast<sockaddr*>(any);
  if (::bind(listener, address, size) != 0 || ::listen(listener, 1) != 0) return "";
  ::getsockname(listener, address, &size);
  std::string asked;
  std::thread server([&] {
    const int connection = ::accept(listener, nullptr, nullptr);
    char piece[4096];
    while (asked.find("\r\n\r\n") == std::string::npos) {
      const ssize_t got = ::read(connection, piece, sizeof piece);
      if (got <= 0) break;
      asked.append(piece, static_cast<size_t>(got));
    }
    ::close(connection);
  });
  HttpClient client(host, ntohs(family == AF_INET6 ? six.sin6_port : four.sin_port), "token");
  HttpCall call;
  call.target = "/";
  *status = client.send(call).error();
  server.join();
  ::close(listener);
  return asked;
}

TEST(HttpClientTest, TellsOfWhoHangsUpAndBracketsAddresses) {
  Status status;
  EXPECT_NE(ask_one_that_hangs_up("127.0.0.1", AF_INET, &status).find("Host: 127.0.0.1:"),
            std::string::npos);
  EXPECT_NE(status.message().find("port for agents"), std::string::npos) << status.message();
  const std::string asked = ask_one_that_hangs_up("::1", AF_INET6, &status);
  if (asked.empty()) GTEST_SKIP() << "no IPv6 here";
  EXPECT_NE(asked.find("Host: [::1]:"), std::string::npos) << asked;
  EXPECT_NE(status.message().find("at [::1]:"), std::string::npos) << status.message();
}

TEST(Encoding, PathsAndQueries) { EXPECT_EQ(encoded("a/b c%\xc3\xa4~"), "a%2Fb%20c%25%C3%A4~"); }

}  // namespace
}  // namespace weft::cli
