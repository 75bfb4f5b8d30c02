#include "kernels/tensor/allocator.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "proto/base/status.h"

namespace weft {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(Allocator, AlignsAndCounts) {
  const auto allocator = make_caching_allocator();
  void* a = allocator->allocate(3);
  void* b = allocator->allocate(1000);
  void* none = allocator->allocate(0);
  for (void* data : {a, b, none}) {
    ASSERT_NE(data, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0U);
  }
  EXPECT_EQ(allocator->stats().live_bytes, 1003);
  allocator->release(b, 1000);
  EXPECT_EQ(allocator->stats().live_bytes, 3);
  EXPECT_EQ(allocator->stats().peak_bytes, 1003);
  allocator->reset_peak();
  EXPECT_EQ(allocator->stats().peak_bytes, 3);
  allocator->release(a, 3);
  allocator->release(none, 0);
  EXPECT_EQ(allocator->stats().live_bytes, 0);
  EXPECT_EQ(allocator->stats().fragmentation, 0);
}

TEST(Allocator, FreedNeighboursBecomeOneBlock) {
  const auto allocator = make_caching_allocator();
  std::vector<void*> parts;
  for (int i = 0; i < 6; ++i) parts.push_back(allocator->allocate(kMiB));
  const AllocatorStats full = allocator->stats();
  EXPECT_EQ(full.reserved_bytes, static_cast<int64_t>(6 * kMiB));
  for (const size_t i : {1, 3, 5, 0, 2, 4}) allocator->release(parts[i], kMiB);
  // Three segments of two pieces: two neighbours give back the whole segment.
  for (void*& whole : parts) whole = nullptr;
  for (const size_t i : {0, 1, 2}) parts[i] = allocator->allocate(2 * kMiB);
  EXPECT_EQ(allocator->stats().system_calls, full.system_calls);
  for (const size_t i : {0, 1, 2}) allocator->release(parts[i], 2 * kMiB);
}

TEST(Allocator, TakesWhatLacksBehindWhatThereIs) {
  const auto allocator = make_caching_allocator();
  const auto reserved = [&] { return allocator->stats().reserved_bytes >> 20; };
  void* first = allocator->allocate(5 * kMiB);
  void* second = allocator->allocate(5 * kMiB);
  EXPECT_EQ(reserved(), 10);
  void* small = allocator->allocate(100);  // ends what is in one piece
  EXPECT_EQ(reserved(), 12);
  void* third = allocator->allocate(20 * kMiB);
  EXPECT_EQ(reserved(), 32);
  allocator->release(third, 20 * kMiB);
  void* larger = allocator->allocate(21 * kMiB);  // 1 MiB more, of units of 2
  EXPECT_EQ(reserved(), 34);
  std::memset(larger, 1, 21 * kMiB);
  allocator->release(larger, 21 * kMiB);
  allocator->release(small, 100);
  allocator->release(second, 5 * kMiB);
  allocator->release(first, 5 * kMiB);
  EXPECT_EQ(allocator->allocate(10 * kMiB), first);
  EXPECT_EQ(reserved(), 34);
  allocator->release(first, 10 * kMiB);
}

// What a loop reads and writes of neighbours is not at the same place of their pages.
TEST(Allocator, NeighboursBeyondTheCachesBeginElsewhereInAPage) {
  const auto allocator = make_caching_allocator();
  std::set<uintptr_t> places;
  std::vector<void*> blocks;
  for (int i = 0; i < 3; ++i) {
    blocks.push_back(allocator->allocate(32 * kMiB));
    const auto at = reinterpret_cast<uintptr_t>(blocks.back());
    EXPECT_EQ(at % 64, 0U);
    places.insert(at % 4096);
  }
  EXPECT_EQ(places.size(), 3U);
  EXPECT_EQ(allocator->stats().live_bytes, static_cast<int64_t>(96 * kMiB));
  for (void* block : blocks) allocator->release(block, 32 * kMiB);
}

TEST(Allocator, TakesTheBestFit) {
  const auto allocator = make_caching_allocator();
  void* large = allocator->allocate(6 * kMiB);
  void* between = allocator->allocate(kMiB);
  void* small = allocator->allocate(kMiB);
  void* fence = allocator->allocate(kMiB);
  allocator->release(large, 6 * kMiB);
  allocator->release(small, kMiB);
  void* again = allocator->allocate(kMiB - 64);
  EXPECT_EQ(again, small);
  EXPECT_GT(allocator->stats().fragmentation, 0);
  allocator->release(again, kMiB - 64);
  allocator->release(fence, kMiB);
  allocator->release(between, kMiB);
}

TEST(Allocator, BlocksDoNotOverlap) {
  const auto allocator = make_caching_allocator();
  std::mt19937 random(3);
  struct Held {
    uint8_t* data;
    size_t bytes;
    uint8_t mark;
  };
  std::vector<Held> held;
  for (int round = 0; round < 4000; ++round) {
    if (held.size() < 40 && random() % 2 == 0) {
      const size_t bytes = random() % 3 == 0 ? random() % (kMiB / 2) : random() % 4096;
      const uint8_t mark = static_cast<uint8_t>(random());
      uint8_t* data = static_cast<uint8_t*>(allocator->allocate(bytes));
      std::memset(data, mark, bytes);
      held.push_back({data, bytes, mark});
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      const Held last = held.back();
      held.pop_back();
      for (size_t i = 0; i < last.bytes; i += 61) ASSERT_EQ(last.data[i], last.mark);
      allocator->release(last.data, last.bytes);
    }
  }
  for (const Held& last : held) allocator->release(last.data, last.bytes);
  EXPECT_EQ(allocator->stats().live_bytes, 0);
}

// One step: 400 requests and releases of many sizes, the same for a seed.
void step(Allocator& allocator, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::pair<void*, size_t>> held;
  for (int i = 0; i < 400; ++i) {
    if (random() % 5 < 3 || held.empty()) {
      const size_t bytes = random() % 4 == 0 ? random() % (3 * kMiB) : random() % 100000;
      held.emplace_back(allocator.allocate(bytes), bytes);
    } else {
      std::swap(held[random() % held.size()], held.back());
      allocator.release(held.back().first, held.back().second);
      held.pop_back();
    }
  }
  for (const auto& [data, bytes] : held) allocator.release(data, bytes);
}

TEST(Allocator, NoSystemCallOnceASequenceWasSeenTwice) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const auto allocator = make_caching_allocator();
    void* parameters = allocator->allocate(5 * kMiB + 100);
    step(*allocator, seed);
    step(*allocator, seed);
    const AllocatorStats before = allocator->stats();
    for (int i = 0; i < 4; ++i) step(*allocator, seed);
    EXPECT_EQ(allocator->stats().system_calls, before.system_calls) << "seed " << seed;
    EXPECT_LE(static_cast<double>(before.reserved_bytes),
              1.6 * static_cast<double>(before.peak_bytes));
    allocator->release(parameters, 5 * kMiB + 100);
  }
}

// What a recorded pass needs: its places, free again and taken again whatever else goes on.
TEST(Allocator, PlacesAreTakenAgain) {
  const auto allocator = make_caching_allocator();
  char* a = static_cast<char*>(allocator->allocate(100 * 1024));
  char* b = static_cast<char*>(allocator->allocate(200 * 1024));
  const std::vector<MemoryRange> both = {{a, 100 * 1024}, {b, 200 * 1024}};
  EXPECT_TRUE(allocator->holds(b));
  EXPECT_FALSE(allocator->holds(b + 64));
  EXPECT_FALSE(allocator->are_free(both));
  allocator->release(a, 100 * 1024);
  EXPECT_FALSE(allocator->are_free(both));
  EXPECT_TRUE(allocator->are_free(std::span(both).first(1)));
  allocator->release(b, 200 * 1024);
  EXPECT_TRUE(allocator->are_free(both));
  allocator->take(b, 200 * 1024);  // with free memory before and behind it
  EXPECT_FALSE(allocator->are_free(both));
  EXPECT_EQ(allocator->allocate(100 * 1024), a);
  EXPECT_EQ(allocator->stats().live_bytes, 300 * 1024);
  std::memset(b, 1, 200 * 1024);
  allocator->release(a, 100 * 1024);
  allocator->release(b, 200 * 1024);
  EXPECT_EQ(allocator->stats().fragmentation, 0);  // one block again
  const int64_t calls = allocator->stats().system_calls;
  allocator->give_back();
  EXPECT_GT(allocator->stats().system_calls, calls);
  EXPECT_FALSE(allocator->are_free(both));  // nobody's any more
}

TEST(Allocator, ARefusalIsAStatusError) {
  const auto allocator = make_caching_allocator();
  try {
    allocator->allocate(size_t{1} << 60);
    FAIL() << "got an exabyte";
  } catch (const StatusError& error) {
    EXPECT_EQ(error.status().code(), Code::kResourceExhausted);
  }
  void* data = allocator->allocate(100);  // goes on
  allocator->release(data, 100);
}

TEST(Allocator, ALimitIsNotUsedUpByTensors) {
  const auto refused = [] {
    const rlimit limit{256 * kMiB, RLIM_INFINITY};
    ::setrlimit(RLIMIT_DATA, &limit);
    const auto allocator = make_caching_allocator();
    try {
      for (;;) allocator->allocate(4 * kMiB);
    } catch (const StatusError& error) {
      const bool others = std::malloc(16 * kMiB) != nullptr;  // libraries go on
      const bool most = allocator->stats().reserved_bytes > int64_t{128 * kMiB};
      return error.status().code() == Code::kResourceExhausted && others && most;
    }
  };
  EXPECT_EXIT(std::_Exit(refused() ? 7 : 1), testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace weft
