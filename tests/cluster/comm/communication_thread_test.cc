#include "cluster/comm/communication_thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <future>
#include <latch>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

namespace weft {
namespace {

using comm::CommunicationThread;

TEST(CommunicationThread, CallsAreDoneOnTheCallerWhereNothingIsLeftToDo) {
  CommunicationThread thread;
  std::thread::id id;
  thread.call([&] {
    id = std::this_thread::get_id();
    EXPECT_TRUE(CommunicationThread::rank_waits());
    EXPECT_FALSE(thread.idle());
    bool nested = false;
    thread.call([&] { nested = true; });
    EXPECT_TRUE(nested);
  });
  EXPECT_EQ(id, std::this_thread::get_id());
  EXPECT_FALSE(CommunicationThread::rank_waits());
  EXPECT_TRUE(thread.idle());
}

TEST(CommunicationThread, CallsComeAfterWhatWasStarted) {
  CommunicationThread thread;
  std::latch called(1);
  std::vector<int> order;
  auto first = thread.start([&] {
    EXPECT_FALSE(CommunicationThread::rank_waits());
    called.wait();
    order.push_back(1);
  });
  std::thread release([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    called.count_down();
  });
  thread.call([&] {
    EXPECT_NE(std::this_thread::get_id(), release.get_id());
    order.push_back(2);
  });
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_TRUE(first.get().ok());
  release.join();
}

// As by a thread that ends the job while the rank is in a call.
TEST(CommunicationThread, WhatIsStartedDuringACallComesAfterIt) {
  CommunicationThread thread;
  std::atomic<bool> in_call = false, done = false;
  std::future<Status> other;
  std::latch started(1);
  std::thread starter([&] {
    while (!in_call) std::this_thread::yield();
    other = thread.start([&] {
      EXPECT_FALSE(in_call);
      done = true;
    });
    started.count_down();
  });
  thread.call([&] {
    in_call = true;
    started.wait();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_FALSE(done);
    in_call = false;
  });
  starter.join();
  EXPECT_TRUE(other.get().ok());
  EXPECT_TRUE(done);
}

TEST(CommunicationThread, AFailureIsThrownAndTheNextCallIsDone) {
  CommunicationThread thread;
  const auto failure_of_call = [&](const std::function<void()>& work) {
    try {
      thread.call(work);
    } catch (const StatusError& error) {
      return error.status();
    }
    return Status();
  };
  EXPECT_EQ(failure_of_call([] { throw StatusError(Status(Code::kUnavailable, "gone")); }).code(),
            Code::kUnavailable);
  EXPECT_EQ(failure_of_call([] { throw std::runtime_error("odd"); }).code(), Code::kInternal);
  EXPECT_TRUE(failure_of_call([] {}).ok());
  EXPECT_FALSE(CommunicationThread::rank_waits());
}

TEST(CommunicationThread, WhatIsRefusedMemoryIsAFailureThatStays) {
  CommunicationThread thread;
  const auto refused = [] { throw std::bad_alloc(); };
  EXPECT_EQ(thread.start(refused).get().code(), Code::kResourceExhausted);
  try {
    thread.call(refused);
    FAIL() << "the failure is lost";
  } catch (const StatusError& error) {
    EXPECT_EQ(error.status().code(), Code::kResourceExhausted);
  }
  EXPECT_TRUE(thread.start([] {}).get().ok());  // goes on
}

TEST(CommunicationThread, WhatFindsNoThreadIsNotWaitedFor) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "what a sanitizer maps for itself is more than the limit";
#endif
  const auto refused = [] {
    pthread_attr_t large;  // than stacks of threads before, which are there still
    ::pthread_attr_init(&large);
    ::pthread_attr_setstacksize(&large, size_t{256} << 20);
    ::pthread_setattr_default_np(&large);
    const rlimit limit{1 << 20, RLIM_INFINITY};  // less than there is: nothing more is granted
    ::setrlimit(RLIMIT_DATA, &limit);
    CommunicationThread thread;
    try {
      (void)thread.start([] {});
    } catch (const std::system_error&) {
      return thread.idle();
    }
    return false;
  };
  EXPECT_EXIT(std::_Exit(refused() ? 7 : 1), testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace weft
