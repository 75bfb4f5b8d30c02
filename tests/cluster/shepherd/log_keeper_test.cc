#include "cluster/shepherd/log_keeper.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "cluster/process/output_pipe.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

class LogKeeperTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/weft-keeper-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    record_.set_folder(name);
    record_.set_run_folder(name);
    record_.set_node("one");
    record_.add_ranks()->set_node("one");
    record_.add_ranks()->set_node("two");
    record_.mutable_ranks(1)->set_rank(1);
  }
  void TearDown() override {
    if (writer_ >= 0) ::close(writer_);
    fs::remove_all(record_.folder());
  }

  void start() {
    ASSERT_TRUE(keeper_.start(record_).ok());
    writer_ = ::open(output_pipe(record_, 0).c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    ASSERT_GE(writer_, 0);
    ::fcntl(writer_, F_SETFL, 0);
  }
  void print(const std::string& text) {
    ASSERT_EQ(::write(writer_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  int unread() const {  // bytes that the keeper has not taken out of the pipe
    int bytes = 0;
    EXPECT_EQ(::ioctl(writer_, FIONREAD, &bytes), 0);
    return bytes;
  }
  std::string log() const {
    std::ostringstream text;
    text << std::ifstream(log_file(record_, 0)).rdbuf();
    return text.str();
  }
  // As a full disk does, a folder in its place keeps the file from being written.
  void block() { fs::create_directory(log_file(record_, 0)); }
  void unblock() { fs::remove(log_file(record_, 0)); }
  bool eventually(const std::function<bool()>& holds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!holds() && std::chrono::steady_clock::now() < end) ::usleep(10'000);
    return holds();
  }

  proto::LaunchRecord record_;
  LogKeeper keeper_;
  int writer_ = -1;
};

TEST_F(LogKeeperTest, PrintsOfThisNodesRanksComeIntoTheirFiles) {
  start();
  print("one\n");
  EXPECT_TRUE(eventually([&] { return log() == "one\n"; })) << log();
  EXPECT_TRUE(fs::exists(output_pipe(record_, kLauncherLog)));
  EXPECT_FALSE(fs::exists(output_pipe(record_, 1)));
  print("two\n");
  keeper_.finish();
  EXPECT_TRUE(keeper_.flush());
  EXPECT_EQ(log(), "one\ntwo\n");
}

TEST_F(LogKeeperTest, WhatCannotBeWrittenIsHeldAndWrittenInOrder) {
  block();
  start();
  std::string all;
  for (int i = 0; i < 20'000; ++i) {
    const std::string line = "line " + std::to_string(i) + "\n";
    print(line);
    all += line;
  }
  ASSERT_LT(all.size(), kHeldBytesMax);
  unblock();
  EXPECT_TRUE(eventually([&] { return log().size() >= all.size(); }));
  EXPECT_EQ(log(), all);
}

TEST_F(LogKeeperTest, BeyondTheBoundALineSaysHowMuchIsMissing) {
  block();
  start();
  const std::string line = std::string(99, 'x') + "\n";
  const int64_t lines = 3 * static_cast<int64_t>(kHeldBytesMax) / 100;
  for (int64_t i = 0; i < lines; ++i) print(line);
  ASSERT_TRUE(eventually([&] { return unread() == 0; }));  // else the last come after the mark
  unblock();
  const std::regex mark(R"(\[weft: (\d+) lines \((\d+) bytes\) are left out here.*\]\n)");
  EXPECT_TRUE(eventually([&] { return std::regex_search(log(), mark); }));
  print("after\n");
  keeper_.finish();
  EXPECT_TRUE(keeper_.flush());
  std::smatch parts;
  const std::string text = log();
  ASSERT_TRUE(std::regex_search(text, parts, mark));
  const int64_t left_out = std::stoll(parts[1]);
  EXPECT_EQ(std::stoll(parts[2]), left_out * 100);
  EXPECT_EQ(parts.prefix().length(), (lines - left_out) * 100);
  EXPECT_LE(parts.prefix().length(), static_cast<int64_t>(kHeldBytesMax));
  EXPECT_GT(parts.prefix().length(), static_cast<int64_t>(kHeldBytesMax) - 100);
  EXPECT_EQ(parts.suffix(), "after\n");
}

TEST_F(LogKeeperTest, TheEndSaysWhetherEverythingIsWritten) {
  block();
  start();
  print("last words\n");
  keeper_.finish();
  EXPECT_FALSE(keeper_.flush());
  unblock();
  EXPECT_TRUE(keeper_.flush());
  EXPECT_EQ(log(), "last words\n");
}

}  // namespace
}  // namespace weft
