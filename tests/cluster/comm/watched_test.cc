// Watched communicators over ranks that are threads: the suite of collectives, what ranks call
// differently, and what an Activity says meanwhile.
#include <gtest/gtest.h>

#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "cluster/comm/threads/thread_world.h"
#include "tests/cluster/comm/collective_cases.h"
#include "tests/cluster/comm/mismatch_cases.h"
#include "tests/testing/rank_runner.h"

namespace weft {
namespace {

class Watched : public ::testing::TestWithParam<testing::CollectiveCase> {};

TEST_P(Watched, Collective) {
  for (const int size : {1, 2, 3}) {
    testing::run_ranks(size, [](Rank& rank) {
      Communicator& world = rank.mesh.axis(Axis::kWorld);
      Activity activity;
      const auto comm = comm::watched(world.split(0, world.rank()), activity, {.compare = true});
      GetParam().run(*comm, *rank.allocator);
      EXPECT_FALSE(activity.now().in_collective);
      EXPECT_FALSE(activity.now().waits);
    });
  }
}
INSTANTIATE_TEST_SUITE_P(All, Watched,
                         ::testing::ValuesIn(testing::collective_cases().begin(),
                                             testing::collective_cases().end()),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(WatchedMismatch, IsToldByAllRanks) {
  for (const int size : {2, 3}) {
    testing::run_ranks(size, [](Rank& rank) {
      Communicator& world = rank.mesh.axis(Axis::kWorld);
      testing::expect_mismatches_told([&] { return world.split(0, world.rank()); });
    });
  }
}

// What a rank says while its peer does not come.
TEST(WatchedActivity, NamesTheCollectiveThatARankIsIn) {
  comm::ThreadWorld world(2);
  Activity activity;
  const auto allocator = make_caching_allocator();
  std::latch looked(1);
  std::thread peer([&, comm = world.take(1)]() mutable {
    Activity own;
    const auto memory = make_caching_allocator();
    const auto watched = comm::watched(std::move(comm), own, {});
    const auto half = watched->split(0, 1, "tensor");
    looked.wait();
    Tensor tensor = Tensor::zeros(*memory, {1024});
    half->all_reduce(tensor, ReduceOp::kSum);
  });
  std::thread mine([&] {
    const auto watched = comm::watched(world.take(0), activity, {});
    const auto half = watched->split(0, 0, "tensor");
    activity.set_step(7);
    const Activity::Phase phase(&activity, "forward");
    const Activity::Layer layer(&activity, 3);
    const Activity::Op op(&activity, "linear");
    Tensor tensor = Tensor::zeros(*allocator, {1024});
    half->all_reduce(tensor, ReduceOp::kSum);
  });
  const auto now_once = [&](auto&& holds) {
    while (true) {
      const Activity::Now now = activity.now();
      if (holds(now)) return now;
      std::this_thread::yield();
    }
  };
  Activity::Now now = now_once([](const Activity::Now& seen) {
    return seen.in_collective && std::string(seen.collective.name) == "all_reduce";
  });
  const uint64_t before = now.progress;
  now = now_once([](const Activity::Now& seen) { return seen.collective_seconds >= 0.05; });
  EXPECT_EQ(now.progress, before);
  EXPECT_TRUE(now.waits);
  EXPECT_EQ(now.step, 7);
  EXPECT_STREQ(now.phase, "forward");
  EXPECT_EQ(now.layer, 3);
  EXPECT_STREQ(now.op, "linear");
  EXPECT_STREQ(now.collective.group->axis, "tensor");
  EXPECT_EQ(now.collective.group->ranks, (std::vector<int>{0, 1}));
  EXPECT_EQ(now.collective.number, 1);
  EXPECT_EQ(now.collective.bytes, 4096);
  EXPECT_STREQ(now.collective.dtype, "F32");
  EXPECT_TRUE(place_of(now.collective.site).starts_with("tests/cluster/comm/watched_test.cc:"));
  looked.count_down();
  mine.join();
  peer.join();
  now = activity.now();
  EXPECT_GT(now.progress, before);
  EXPECT_FALSE(now.in_collective);
  EXPECT_EQ(now.phase, nullptr);
  EXPECT_EQ(now.layer, -1);
}

}  // namespace
}  // namespace weft
