// The suite of collectives on the transports inside one process, and the failures of threads.
#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <limits>
#include <string>
#include <tuple>

#include "cluster/comm/single/single_communicator.h"
#include "cluster/comm/threads/thread_world.h"
#include "tests/cluster/comm/collective_cases.h"
#include "tests/testing/rank_runner.h"

namespace weft {
namespace {

using testing::CollectiveCase;

struct CaseName {
  template <typename T>
  std::string operator()(const T& info) const {
    return std::get<0>(info.param).name;
  }
};

class Single : public ::testing::TestWithParam<std::tuple<CollectiveCase>> {};

TEST_P(Single, Collective) {
  const auto allocator = make_caching_allocator();
  const auto world = comm::single_world();
  std::get<0>(GetParam()).run(*world, *allocator);
}
INSTANTIATE_TEST_SUITE_P(All, Single,
                         ::testing::Combine(::testing::ValuesIn(testing::collective_cases().begin(),
                                                                testing::collective_cases().end())),
                         CaseName());

class Threads : public ::testing::TestWithParam<std::tuple<CollectiveCase, int>> {};

TEST_P(Threads, Collective) {
  testing::run_ranks(std::get<1>(GetParam()), [](Rank& rank) {
    std::get<0>(GetParam()).run(rank.mesh.axis(Axis::kWorld), *rank.allocator);
  });
}
INSTANTIATE_TEST_SUITE_P(All, Threads,
                         ::testing::Combine(::testing::ValuesIn(testing::collective_cases().begin(),
                                                                testing::collective_cases().end()),
                                            ::testing::Range(1, 9)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).name) +
                                  std::to_string(std::get<1>(test.param));
                         });

// What the other ranks get when rank 1 leaves instead of taking part in `collective`.
template <typename F>
void expect_unavailable(F collective) {
  std::atomic<int> unavailable = 0;
  std::latch all_here(3);  // a rank still at the making of its mesh would fail there
  const auto body = [&](Rank& rank) {
    all_here.arrive_and_wait();
    if (rank.mesh.index(Axis::kWorld) == 1) throw std::runtime_error("rank 1 fails");
    try {
      collective(rank, rank.mesh.axis(Axis::kWorld));
    } catch (const StatusError& error) {
      if (error.status().code() == Code::kUnavailable) ++unavailable;
      throw;
    }
  };
  try {
    testing::run_ranks(3, body);
    ADD_FAILURE() << "no exception";
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(unavailable, 2);
}

TEST(ThreadFailure, OthersAreReleased) {
  expect_unavailable([](Rank&, Communicator& world) { world.barrier(); });
  expect_unavailable([](Rank& rank, Communicator& world) {
    Tensor tensor = Tensor::zeros(*rank.allocator, {1000});
    world.all_reduce(tensor, ReduceOp::kSum);
  });
  expect_unavailable([](Rank&, Communicator& world) { world.split(0, 0); });
  expect_unavailable(
      [](Rank& rank, Communicator& world) {  // each waits for rank 1, directly or not
        const Tensor send = Tensor::zeros(*rank.allocator, {4});
        Tensor receive = Tensor::zeros(*rank.allocator, {4});
        const int size = world.size();
        for (int i = 0; i < 2; ++i) {
          world.send_receive(send, (world.rank() + 1) % size, receive, (world.rank() + 2) % size);
        }
      });
}

TEST(ThreadFailure, WhatWasStartedIsReleased) {
  expect_unavailable([](Rank& rank, Communicator& world) {
    Tensor tensor = Tensor::zeros(*rank.allocator, {1000});
    const auto sum = [tensor](Communicator& c) mutable { c.all_reduce(tensor, ReduceOp::kSum); };
    Pending first = world.start(sum);
    Pending second = world.start(sum);  // never waited for
    first.wait();
  });
}

TEST(ThreadFailure, OthersAreReleasedWithinASplit) {
  EXPECT_THROW(testing::run_mesh({.data = 2, .tensor = 2},
                                 [](Rank& rank) {
                                   if (rank.mesh.index(Axis::kWorld) == 3) {
                                     throw std::invalid_argument("mine");
                                   }
                                   rank.mesh.axis(Axis::kTensor).barrier();
                                   rank.mesh.axis(Axis::kData).barrier();
                                 }),
               std::exception);
}

TEST(ThreadFailure, LeavingWithoutACallReleasesToo) {
  comm::ThreadWorld world(2);
  auto first = world.take(0);
  world.take(1).reset();
  EXPECT_THROW(first->barrier(), StatusError);
}

// Ranks finish an exchange at different times; the first to leave takes nothing from the others.
TEST(ThreadExit, EarlyLeaversDisturbNobody) {
  for (int round = 0; round < 50; ++round) {
    testing::run_ranks(4, [](Rank& rank) {
      Communicator& world = rank.mesh.axis(Axis::kWorld);
      const Tensor send = Tensor::full(*rank.allocator, {64}, world.rank());
      Tensor receive = Tensor::zeros(*rank.allocator, {64});
      for (int shift = 1; shift < 4; ++shift) {
        const int from = (world.rank() + 4 - shift) % 4;
        world.send_receive(send, (world.rank() + shift) % 4, receive, from);
        EXPECT_EQ(receive.data<float>()[63], static_cast<float>(from));
      }
    });
  }
}

TEST(PartOf, TilesTheWhole) {
  for (int64_t whole = 0; whole < 12; ++whole) {
    for (int count = 1; count < 6; ++count) {
      int64_t next = 0;
      for (int i = 0; i < count; ++i) {
        const Part part = part_of(whole, count, i);
        EXPECT_EQ(part.start, next);
        EXPECT_LE(part.length, part_of(whole, count, 0).length);
        EXPECT_GE(part.length + 1, part_of(whole, count, 0).length);
        next += part.length;
      }
      EXPECT_EQ(next, whole);
    }
  }
}

TEST(PartOf, IsAUnionOfFinerParts) {
  for (int64_t whole = 0; whole < 40; ++whole) {
    for (const int count : {1, 2, 3, 4, 8}) {
      for (const int finer : {1, 2, 3, 8}) {
        for (int i = 0; i < count; ++i) {
          EXPECT_EQ(part_of(whole, count, i).start, part_of(whole, count * finer, i * finer).start)
              << whole << " over " << count << " and " << finer;
        }
      }
    }
  }
}

TEST(PartOf, HoldsItsElements) {
  for (int64_t whole = 1; whole < 20; ++whole) {
    for (int count = 1; count < 24; ++count) {
      for (int i = 0; i < count; ++i) {
        const Part part = part_of(whole, count, i);
        for (int64_t at = part.start; at < part.start + part.length; ++at) {
          EXPECT_EQ(part_with(whole, count, at), i) << at << " of " << whole << " over " << count;
        }
      }
    }
  }
}

TEST(PartOf, DoesNotOverflow) {
  constexpr int64_t kWhole = std::numeric_limits<int64_t>::max();
  constexpr int kCount = 1 << 20;
  const Part last = part_of(kWhole, kCount, kCount - 1);
  EXPECT_EQ(last.start + last.length, kWhole);
  EXPECT_EQ(last.length, kWhole / kCount);
}

}  // namespace
}  // namespace weft
