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

#include "kernels/ops/ops.h"

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

TEST(ThreadStacks, SaysWhereAThreadIsThatAnswers) {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::thread waits([&] {
    ::pthread_setname_np(::pthread_self(), "waiter");
    answer_with_stack();
    weft_test_waits(mutex, changed, done);
  });
  std::vector<proto::ThreadStack> stacks;
  const proto::ThreadStack* waiter = nullptr;
  do {  // until it is there; else the test's limit ends this
    stacks = thread_stacks();
    waiter = find(stacks, "waiter");
  } while (waiter == nullptr || !mentions(*waiter, "weft_test_waits"));
  ASSERT_GE(stacks.size(), 2u);
  for (const proto::ThreadStack& stack : stacks) {
    EXPECT_EQ(stack.frames().empty(), stack.name() != "waiter");  // nobody else is signalled
  }
  {
    const std::lock_guard lock(mutex);
    done = true;
    changed.notify_all();
  }
  waits.join();
}

// Threads that allocate, throw and end are asked again and again.
TEST(ThreadStacks, DisturbsNobody) {
  std::atomic<bool> stop = false;
  std::atomic<int64_t> rounds = 0;
  const auto work = [&] {
    answer_with_stack();
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

// Generated code keeps data below its stack pointer.
TEST(ThreadStacks, DisturbsNoProduct) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a thread that computes is sent no signal before its next call of the system";
#endif
  std::atomic<bool> stop = false;
  std::atomic<int64_t> rounds = 0, wrong = 0;
  std::thread multiplies([&] {
    answer_with_stack();
    const auto allocator = make_caching_allocator();
    ThreadPool pool(1);
    Context cx{*allocator, pool};
    const Tensor a = Tensor::full(*allocator, {128, 256}, 1),
                 b = Tensor::full(*allocator, {256, 64}, 1);
    while (!stop) {
      for (const float value : ops::matmul(cx, a, b).to_vector<float>()) wrong += value != 256;
      ++rounds;
    }
  });
  int64_t answers = 0;
  while (answers < 100 || rounds < 20) {
    for (const proto::ThreadStack& stack : thread_stacks()) answers += !stack.frames().empty();
  }
  stop = true;
  multiplies.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace weft
