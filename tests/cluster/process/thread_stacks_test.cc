#include "cluster/process/thread_stacks.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>

// Not inlined and exported, so that a stack names it.
extern "C" __attribute__((noinline)) void weft_test_waits(std::mutex& mutex,
                                                          std::condition_variable& changed,
                                                          bool& done) {
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return done; });
}

namespace weft {
namespace {

const proto::ThreadStack* find(const std::vector<proto::ThreadStack>& stacks, const char* name) {
  for (const proto::ThreadStack& stack : stacks) {
    if (stack.name() == name) return &stack;
  }
  return nullptr;
}

bool mentions(const proto::ThreadStack& stack, const char* function) {
  for (const std::string& frame : stack.frames()) {
    if (frame.find(function) != std::string::npos) return true;
  }
  return false;
}

TEST(ThreadStacks, SaysWhereEachThreadIs) {
  prepare_thread_stacks();
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::atomic<bool> named = false;
  std::thread waits([&] {
    ::pthread_setname_np(::pthread_self(), "waiter");
    named = true;
    weft_test_waits(mutex, changed, done);
  });
  while (!named) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto stacks = thread_stacks();
  const proto::ThreadStack* waiter = find(stacks, "waiter");
  ASSERT_NE(waiter, nullptr);
  EXPECT_TRUE(mentions(*waiter, "weft_test_waits")) << waiter->DebugString();
  EXPECT_GE(stacks.size(), 2u);
  for (const proto::ThreadStack& stack : stacks) EXPECT_FALSE(stack.frames().empty());
  {
    const std::lock_guard lock(mutex);
    done = true;
    changed.notify_all();
  }
  waits.join();
}

// Threads that allocate, throw and end are asked again and again.
TEST(ThreadStacks, DisturbsNobody) {
  prepare_thread_stacks();
  std::atomic<bool> stop = false;
  std::atomic<int64_t> rounds = 0;
  const auto work = [&] {
    while (!stop) {
      try {
        const auto some = std::make_unique<std::string>(1000, 'x');
        std::thread([] {}).join();
        throw std::runtime_error(*some);
      } catch (const std::runtime_error&) {
        ++rounds;
      }
    }
  };
  std::thread first(work), second(work);
  for (int i = 0; i < 200; ++i) thread_stacks();
  const int64_t before = rounds;
  while (rounds < before + 10) std::this_thread::yield();
  stop = true;
  first.join();
  second.join();
}

}  // namespace
}  // namespace weft
