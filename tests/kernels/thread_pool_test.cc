#include "kernels/tensor/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <set>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/tensor/pinning.h"

namespace weft {
namespace {

using Parts = std::set<std::pair<int64_t, int64_t>>;

Parts split(ThreadPool& pool, int64_t count, int64_t grain) {
  std::mutex mutex;
  Parts parts;
  pool.parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    parts.emplace(begin, end);
  });
  return parts;
}

TEST(ThreadPool, EveryElementOnceInPartsOfAtLeastTheGrain) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (const int64_t count : {0, 1, 2, 7, 100, 1001}) {
      for (const int64_t grain : {1, 3, 64}) {
        const Parts parts = split(pool, count, grain);
        EXPECT_LE(parts.size(), static_cast<size_t>(threads));
        int64_t next = 0;
        for (const auto& [begin, end] : parts) {
          EXPECT_EQ(begin, next);
          if (end != count) {
            EXPECT_GE(end - begin, grain);
          }
          next = end;
        }
        EXPECT_EQ(next, count);
        if (count >= grain * threads) {
          EXPECT_GT(parts.size(), static_cast<size_t>(threads) / 2);
        }
      }
    }
  }
}

TEST(ThreadPool, TheSplitIsTheSameEveryTime) {
  ThreadPool pool(3);
  const Parts first = split(pool, 17, 1);
  for (int round = 0; round < 200; ++round) ASSERT_EQ(split(pool, 17, 1), first);
}

TEST(ThreadPool, AnExceptionReachesTheCallerAndThePoolLivesOn) {
  ThreadPool pool(3);
  for (const int64_t bad : {0, 8, 15}) {
    const auto body = [&](int64_t begin, int64_t end) {
      if (bad >= begin && bad < end) throw std::runtime_error("bad");
    };
    EXPECT_THROW(pool.parallel_for(16, 1, body), std::runtime_error);
    std::atomic<int64_t> total{0};
    pool.parallel_for(100, 1, [&](int64_t begin, int64_t end) { total += end - begin; });
    EXPECT_EQ(total.load(), 100);
  }
}

TEST(ThreadPool, ANestedCallRunsOnTheCallingThread) {
  ThreadPool pool(2);
  pool.parallel_for(8, 1, [&](int64_t, int64_t) {
    const std::thread::id outer = std::this_thread::get_id();
    pool.parallel_for(8, 1, [&](int64_t begin, int64_t end) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      EXPECT_EQ(end - begin, 8);
    });
  });
}

TEST(ThreadPool, EveryThreadFlushesDenormals) {
  ThreadPool pool(3);
  const volatile float denormal = std::numeric_limits<float>::denorm_min() * 1024;
  const volatile float least = std::numeric_limits<float>::min();
  std::atomic<int> kept{0}, threads{0};
  pool.parallel_for(3, 1, [&](int64_t, int64_t) {
    ++threads;
    const volatile float read = denormal * 1e30F;  // not flushed: a normal number
    const volatile float made = least * 0.5F;
    if (read != 0.0F || made != 0.0F) ++kept;
  });
  EXPECT_EQ(threads.load(), 3);
  EXPECT_EQ(kept.load(), 0);
}

std::set<int> allowed() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  std::set<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &set)) cpus.insert(cpu);
  }
  return cpus;
}

// Each thread of the pool is on the processor that it was given; one that its owner starts later is
// on that of its owner, until it asks to be anywhere.
TEST(ThreadPool, ThreadsArePinnedAndOthersMayRunAnywhere) {
  const std::set<int> before = allowed();
  const std::vector<int> cpus = {*before.rbegin(), *before.begin()};
  std::set<int> begun, freed;
  std::thread([&] {  // whose pin ends with it
    ThreadPool pool(2, cpus);
    std::mutex mutex;
    std::multiset<std::set<int>> found;
    pool.parallel_for(2, 1, [&](int64_t, int64_t) {
      const std::lock_guard lock(mutex);
      found.insert(allowed());
    });
    EXPECT_EQ(found, (std::multiset<std::set<int>>{{cpus[0]}, {cpus[1]}}));
    std::thread([&] {
      begun = allowed();
      run_anywhere();
      freed = allowed();
    }).join();
  })
      .join();
  EXPECT_EQ(begun, std::set<int>{cpus[0]});
  EXPECT_EQ(freed, before);
  EXPECT_EQ(allowed(), before);
}

TEST(ThreadPool, OneThatIsRefusedAStackIsAnError) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "what a sanitizer maps for itself is more than the limit";
#endif
  const auto throws = [] {
    const rlimit limit{20 << 20, RLIM_INFINITY};  // of two threads or three
    ::setrlimit(RLIMIT_DATA, &limit);
    try {
      const ThreadPool pool(16);
    } catch (const std::system_error&) {
      return true;
    }
    return false;
  };
  EXPECT_EXIT(std::_Exit(throws() ? 7 : 1), testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace weft
