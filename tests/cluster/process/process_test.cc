#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <latch>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "cluster/process/process.h"

namespace weft {
namespace {

class ProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/weft-process-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
    ::chmod(name, 0777);
    options_.log_file = folder_ + "/log";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  int run(std::vector<std::string> argv) {
    options_.argv = std::move(argv);
    auto process = start_process(options_);
    EXPECT_TRUE(process) << process.error().to_string();
    return process ? (*process)->wait() : -1;
  }
  std::string log() const {
    std::ifstream file(options_.log_file);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  std::string folder_;
  ProcessOptions options_;
};

TEST_F(ProcessTest, ArgumentsReachTheProgramAsTheyAre) {
  EXPECT_EQ(run({"/usr/bin/printf", "%s|", "a b", "$(id)", ";", "", "'\""}), 0);
  EXPECT_EQ(log(), "a b|$(id)|;||'\"|");
}

TEST_F(ProcessTest, TheEnvironmentIsWhatWasGivenAndNoDescriptorLeaks) {
  options_.env = {"ONE=1"};
  EXPECT_EQ(run({"/usr/bin/env"}), 0);
  EXPECT_EQ(log(), "ONE=1\n");
  std::filesystem::remove(options_.log_file);
  EXPECT_EQ(run({"/bin/ls", "/proc/self/fd"}), 0);
  EXPECT_EQ(log(), "0\n1\n2\n3\n") << "3 is ls's own";
}

TEST_F(ProcessTest, ExitCodesAndSignals) {
  EXPECT_EQ(run({"/bin/sh", "-c", "exit 42"}), 42);
  EXPECT_EQ(run({"/bin/sh", "-c", "kill -9 $$"}), 128 + SIGKILL);
}

TEST_F(ProcessTest, WhatCannotStartSaysWhy) {
  options_.argv = {"/nowhere/program"};
  const auto missing = start_process(options_);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), Code::kNotFound);
  EXPECT_NE(missing.error().to_string().find("/nowhere/program"), std::string::npos);
  options_.argv = {"/etc/passwd"};
  ASSERT_FALSE(start_process(options_));
  EXPECT_EQ(start_process(options_).error().code(), Code::kPermissionDenied);
  options_.argv = {"/bin/true"};
  options_.folder = "/nowhere";
  EXPECT_FALSE(start_process(options_));
}

TEST_F(ProcessTest, AnotherUser) {
  options_.argv = {"/usr/bin/id"};
  options_.uid = 65534;
  options_.gid = 65534;
  if (::geteuid() != 0) {  // only root can, and anybody else must be told so
    EXPECT_FALSE(start_process(options_));
    return;
  }
  EXPECT_EQ(run({"/usr/bin/id"}), 0);
  EXPECT_EQ(log().find("uid=0"), std::string::npos);
  EXPECT_NE(log().find("uid=65534"), std::string::npos);
  EXPECT_EQ(log().find("(root)"), std::string::npos) << log();
}

TEST(FindUser, RefusesRootAndWhoIsNotThere) {
  EXPECT_EQ(find_user("root").error().field(), "user");
  EXPECT_EQ(find_user("no-such-user").error().code(), Code::kFailedPrecondition);
}

TEST_F(ProcessTest, AReusedPidIsNotTakenForTheProcess) {
  options_.argv = {"/bin/sleep", "100"};
  auto process = start_process(options_);
  ASSERT_TRUE(process);
  const pid_t pid = (*process)->pid();
  const uint64_t started = start_time_of(pid);
  EXPECT_TRUE(is_alive(pid, started));
  EXPECT_FALSE(is_alive(pid, started + 1));
  ASSERT_TRUE((*process)->signal(SIGKILL).ok());
  EXPECT_EQ((*process)->wait(), 128 + SIGKILL);
  EXPECT_FALSE(is_alive(pid, started));
  EXPECT_EQ((*process)->signal(SIGKILL).code(), Code::kNotFound);
}

TEST_F(ProcessTest, FilesAreReadWithoutFollowingLinks) {
  ASSERT_TRUE(write_file(folder_ + "/plain", "text", 0600).ok());
  EXPECT_EQ(read_file(folder_ + "/plain", 100).value(), "text");
  EXPECT_FALSE(read_file(folder_ + "/plain", 3));
  ASSERT_EQ(::symlink((folder_ + "/plain").c_str(), (folder_ + "/link").c_str()), 0);
  EXPECT_FALSE(read_file(folder_ + "/link", 100));
  ASSERT_EQ(::mkfifo((folder_ + "/pipe").c_str(), 0600), 0);
  EXPECT_FALSE(read_file(folder_ + "/pipe", 100));
  EXPECT_EQ(read_file(folder_ + "/none", 100).error().code(), Code::kNotFound);
  EXPECT_EQ(read_tail(folder_ + "/plain", 3).value(), "ext");
  EXPECT_EQ(read_tail(folder_ + "/plain", 100).value(), "text");
  EXPECT_FALSE(read_tail(folder_ + "/link", 100));
  EXPECT_FALSE(read_tail(folder_ + "/pipe", 100));
}

TEST(EndText, NamesTheSignal) {
  EXPECT_EQ(end_text(128 + SIGKILL), "was killed by signal 9 (Killed)");
  EXPECT_EQ(end_text(205), "exited with code 205");
  EXPECT_EQ(end_text(3), "exited with code 3");
}

TEST(Memory, AProcessThatIsLimitedIsRefusedMoreAndOffersItself) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "what a sanitizer maps for itself is more than the limit";
#endif
  EXPECT_GT(machine_memory_bytes(), int64_t{64} << 20);
  EXPECT_GE(oom_kills(), 0);
  EXPECT_EXIT(
      {
        offer_to_oom_killer();
        int score = 0;
        std::ifstream("/proc/self/oom_score_adj") >> score;
        limit_memory(int64_t{256} << 20);
        void* small = std::malloc(size_t{16} << 20);
        void* large = std::malloc(size_t{512} << 20);
        std::_Exit(score == 1000 && small != nullptr && large == nullptr ? 7 : 1);
      },
      testing::ExitedWithCode(7), "");
}

TEST(Memory, LargeBlocksGoBack) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer has an allocator of its own";
#endif
  const auto kept = [] {
    give_back_large_blocks();
    const int64_t before = data_bytes();
    for (int i = 0; i < 8; ++i) {
      void* block = std::malloc(4 << 20);
      *static_cast<volatile char*>(block) = 1;
      std::free(block);
    }
    return data_bytes() - before;
  };
  EXPECT_EXIT(std::_Exit(kept() < (1 << 20) ? 7 : 1), testing::ExitedWithCode(7), "");
}

// Fills a limit to its end with small pieces; whether 20 KiB are found then.
bool finds_room_when_refused() {
  keep_room_for_failures();
  limit_memory(data_bytes() - unused_memory_bytes() + (16 << 20));
  std::vector<std::unique_ptr<char[]>> pieces;
  pieces.reserve(1 << 20);
  try {
    while (true) pieces.push_back(std::make_unique<char[]>(64));
  } catch (const std::bad_alloc&) {
    return std::string(20 << 10, 'x').size() > 0 && !pieces.empty();
  }
}

TEST(Memory, WhoIsRefusedItFindsRoomToTell) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's allocator is not limited";
#endif
  EXPECT_EXIT(
      {
        auto other = std::async(std::launch::async, finds_room_when_refused);
        std::_Exit(other.get() ? 7 : 1);
      },
      testing::ExitedWithCode(7), "");
}

TEST(Memory, WhatIsSetAsideAndNotUsedDoesNotCount) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "what a sanitizer maps for itself is more than the limit";
#endif
  EXPECT_EXIT(
      {
        constexpr size_t kMiB = size_t{1} << 20;
        constexpr int kThreads = 32;  // with stacks of 8 MiB they would not fit
        const bool aside = std::malloc(512 * kMiB) != nullptr;
        limit_memory(int64_t{96} << 20);
        make_stacks_small();
        std::vector<std::thread> threads;
        std::latch all(kThreads + 1);
        for (int i = 0; i < kThreads; ++i) threads.emplace_back([&] { all.arrive_and_wait(); });
        const bool small = std::malloc(32 * kMiB) != nullptr;
        const bool large = std::malloc(96 * kMiB) != nullptr;
        all.arrive_and_wait();
        for (std::thread& thread : threads) thread.join();
        std::_Exit(aside && small && !large ? 7 : 1);
      },
      testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace weft
