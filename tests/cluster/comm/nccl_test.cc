// The suite of collectives over NCCL's communicator, with ranks that are threads and GPUs made of
// fibers: on the GPU's tensors and on the host's, which go another way; and lost ranks.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <latch>
#include <mutex>
#include <thread>
#include <tuple>

#include "cluster/comm/nccl/nccl_communicator.h"
#include "cluster/comm/rank_gpu.h"
#include "cluster/comm/threads/thread_ranks.h"
#include "cluster/comm/threads/thread_world.h"
#include "kernels/cuda/device.h"
#include "kernels/tensor/stream.h"
#include "kernels/tensor/transfer.h"
#include "proto/base/status.h"
#include "tests/cluster/comm/by_gpu.h"
#include "tests/cluster/comm/collective_cases.h"
#include "tests/cluster/comm/gpu_collective_cases.h"
#include "tests/testing/cuda_on_cpu/machine.h"
#include "tests/testing/cuda_on_cpu/streams.h"
#include "tests/testing/nccl_on_cpu/nccl_on_cpu.h"
#include "tests/testing/nccl_rank.h"

namespace weft {
namespace {

using testing::ByGpu;
using testing::CollectiveCase;

using Body = std::function<void(std::unique_ptr<Communicator>, Allocator& gpu)>;

// Each rank a thread with a GPU of its own; the first exception is thrown on.
void run_ranks(int size, const Body& body, const comm::NcclOptions& options = kPatient) {
  comm::ThreadWorld world(size);
  std::mutex mutex;
  std::exception_ptr first;
  const auto work = [&](std::unique_ptr<Communicator> introduction) {
    try {
      auto gpu = cuda::make_allocator(0);
      if (!gpu) throw StatusError(gpu.error());
      auto nccl = comm::make_nccl_communicator(std::move(introduction), **gpu, options);
      if (!nccl) throw StatusError(nccl.error());
      body(std::move(*nccl), **gpu);
    } catch (const std::exception& error) {
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
      world.fail(error.what());
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) threads.emplace_back(work, world.take(rank));
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

class OverNccl : public ::testing::TestWithParam<std::tuple<CollectiveCase, int>> {};

TEST_P(OverNccl, OnTheGpu) {
  if (std::get<0>(GetParam()).orders_nan) return;  // which NCCL does not
  run_ranks(std::get<1>(GetParam()), [](std::unique_ptr<Communicator> nccl, Allocator& gpu) {
    ByGpu comm(std::move(nccl), gpu);
    const auto host = make_caching_allocator();
    std::get<0>(GetParam()).run(comm, *host);
  });
}
TEST_P(OverNccl, OnTheHost) {
  if (std::get<1>(GetParam()) > 2) return;  // the other transport's own suite has more
  run_ranks(std::get<1>(GetParam()), [](std::unique_ptr<Communicator> nccl, Allocator&) {
    const auto host = make_caching_allocator();
    std::get<0>(GetParam()).run(*nccl, *host);
  });
}
auto on_ranks(int from, int to) {
  return ::testing::Combine(
      ::testing::ValuesIn(testing::collective_cases().begin(), testing::collective_cases().end()),
      ::testing::Range(from, to + 1));
}
std::string case_name(const ::testing::TestParamInfo<OverNccl::ParamType>& test) {
  return std::string(std::get<0>(test.param).name) + std::to_string(std::get<1>(test.param));
}
INSTANTIATE_TEST_SUITE_P(Few, OverNccl, on_ranks(1, 4), case_name);
INSTANTIATE_TEST_SUITE_P(Many, OverNccl, on_ranks(5, 8), case_name);

// The place that take_gpu gives each rank of a world whose ranks see these GPUs.
void run_placed(const std::vector<int>& gpus, const std::function<void(Rank&)>& body) {
  run_on_threads({.data = static_cast<int>(gpus.size())}, body,
                 [&](std::unique_ptr<Communicator> threads) -> RankPlace {
                   cuda_on_cpu::set_gpu_number(gpus[static_cast<size_t>(threads->rank())]);
                   auto place = comm::take_gpu(std::move(threads), "");
                   if (!place) throw StatusError(place.error());
                   return std::move(*place);
                 });
}

// Ranks that share a GPU.
class Staged : public ::testing::TestWithParam<std::tuple<CollectiveCase, int>> {};

TEST_P(Staged, Collective) {
  const int size = std::get<1>(GetParam());
  run_placed(std::vector<int>(static_cast<size_t>(size), 0), [&](Rank& rank) {
    ByGpu comm(rank.mesh.axis(Axis::kWorld).split(0, rank.mesh.index(Axis::kWorld)),
               *rank.allocator);
    const auto host = make_caching_allocator();
    std::get<0>(GetParam()).run(comm, *host);
  });
}
INSTANTIATE_TEST_SUITE_P(Few, Staged, on_ranks(1, 3), case_name);
INSTANTIATE_TEST_SUITE_P(Many, Staged, on_ranks(4, 8), case_name);

// Which way the ranks talk follows from the GPUs that they have, whatever nodes they are of. NCCL
// has a communicator for each axis along which there are several, here world, data and replica.
TEST(TakeGpu, GoesOverNcclWhereEveryOneOfSeveralRanksHasOneOfItsOwn) {
  for (const auto& [gpus, over_nccl] :
       {std::pair{std::vector{0, 1, 2}, 9}, {std::vector{0, 1, 0}, 0}, {std::vector{5}, 0}}) {
    run_placed(gpus, [&, over_nccl = over_nccl, size = std::ssize(gpus)](Rank& rank) {
      Communicator& world = rank.mesh.axis(Axis::kWorld);
      world.barrier();
      EXPECT_EQ(nccl_on_cpu::communicators(), over_nccl);
      Tensor x = Tensor::full(*rank.allocator, {3}, rank.mesh.index(Axis::kWorld) + 1);
      Tensor alone = x.view({3}, std::array<int64_t, 1>{1}, 0);
      rank.mesh.axis(Axis::kTensor).all_reduce(alone, ReduceOp::kSum);
      world.all_reduce(x, ReduceOp::kSum);
      EXPECT_EQ(x.to_vector<float>()[2], static_cast<float>(size * (size + 1) / 2));
      world.barrier();
    });
  }
  EXPECT_EQ(nccl_on_cpu::communicators(), 0);
}

// Every rank says whose GPU is missing.
TEST(TakeGpu, SaysThatTheWantedOneIsGone) {
  const std::string wanted = "GPU-00000003-0000-0000-0000-000000000000";
  comm::ThreadWorld world(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank, introduction = world.take(rank)]() mutable {
      cuda_on_cpu::set_gpu_number(rank + 3);
      const auto place = comm::take_gpu(std::move(introduction), wanted);
      ASSERT_FALSE(place);
      EXPECT_EQ(place.error().code(), Code::kUnavailable);
      EXPECT_EQ(place.error().message(),
                "rank 1: the GPU of its slot, " + wanted +
                    ", is gone; the driver shows GPU-00000004-0000-0000-0000-000000000000");
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(TakeGpu, SharesOutWhatTheRanksSee) {
  using Seen = std::vector<std::vector<std::string>>;
  const auto shared = [](const Seen& seen) { return comm::share_out(seen); };
  const std::vector<std::string> both = {"a", "b"};
  EXPECT_EQ(shared({both, both}), (std::vector<size_t>{0, 1}));
  EXPECT_EQ(shared({both, both, both}), (std::vector<size_t>{0, 1, 0}));
  EXPECT_EQ(shared({both, {"a"}}), (std::vector<size_t>{1, 0}));  // fewer choose first
  EXPECT_EQ(shared({{"a"}, {"a"}}), (std::vector<size_t>{0, 0}));
  EXPECT_EQ(shared({both, {"c", "d"}}), (std::vector<size_t>{0, 0}));  // two machines
}

TEST(NcclFailure, TwoRanksOnOneGpuAreRefused) {
  try {
    run_on_threads(
        {.data = 2}, [](Rank&) { ADD_FAILURE(); },
        [](std::unique_ptr<Communicator> threads) -> RankPlace {
          cuda_on_cpu::set_gpu_number(0);
          auto gpu = cuda::make_allocator(0);
          auto nccl = comm::make_nccl_communicator(std::move(threads), **gpu);
          if (!nccl) throw StatusError(nccl.error());
          return {std::move(*gpu), std::move(*nccl)};
        });
    ADD_FAILURE() << "no exception";
  } catch (const StatusError& error) {
    EXPECT_EQ(error.status().code(), Code::kUnavailable);
  }
}

// A peer that is alive but does not come before the end: no error is heard of, and the end waits
// for a bounded time, without which nothing here would ever end.
TEST(NcclFailure, TheEndOfACommunicatorDoesNotWaitForEver) {
  std::latch gone(1);
  run_ranks(2,
            [&](std::unique_ptr<Communicator> nccl, Allocator& gpu) {
              Tensor x = Tensor::zeros(gpu, {10});
              if (nccl->rank() == 1) {
                gone.wait();
                EXPECT_THROW(nccl->all_reduce(x, ReduceOp::kSum), StatusError);
                return;
              }
              nccl->all_reduce(x, ReduceOp::kSum);
              nccl.reset();
              gone.count_down();
            },
            {.drain = std::chrono::milliseconds(50)});
  EXPECT_EQ(nccl_on_cpu::communicators(), 0);
}

// NCCL keeps whatever follows back until a group is closed, and allows no abort inside one.
TEST(NcclFailure, ARefusalInsideAGroupClosesIt) {
  for (const int send : {1, 2}) {
    EXPECT_THROW(run_ranks(3,
                           [&](std::unique_ptr<Communicator> nccl, Allocator& gpu) {
                             const std::vector<int64_t> counts{2, 2, 2};
                             const Tensor in = Tensor::zeros(gpu, {6});
                             Tensor out = Tensor::zeros(gpu, {6});
                             if (nccl->rank() == 0) nccl_on_cpu::refuse_send(send);
                             try {
                               nccl->all_to_all(in, counts, out, counts);
                               out.to_vector<float>();
                             } catch (const StatusError&) {
                               EXPECT_EQ(nccl_on_cpu::open_groups(), 0);
                               throw;
                             }
                           }),
                 StatusError);
    EXPECT_EQ(nccl_on_cpu::communicators(), 0);
  }
}

class AmongWork : public ::testing::TestWithParam<std::tuple<CollectiveCase, int>> {};

TEST_P(AmongWork, InEveryOrderOfTheStreams) {
  for (const auto order :
       {cuda_on_cpu::Order::kForward, cuda_on_cpu::Order::kReverse, cuda_on_cpu::Order::kSeeded}) {
    cuda_on_cpu::set_schedule({order, 5});
    run_ranks(std::get<1>(GetParam()), [](std::unique_ptr<Communicator> nccl, Allocator& gpu) {
      std::get<0>(GetParam()).run(*nccl, gpu);
    });
  }
}
INSTANTIATE_TEST_SUITE_P(
    All, AmongWork,
    ::testing::Combine(::testing::ValuesIn(testing::gpu_collective_cases().begin(),
                                           testing::gpu_collective_cases().end()),
                       ::testing::Values(1, 2, 3)),
    [](const auto& test) {
      return std::string(std::get<0>(test.param).name) + std::to_string(std::get<1>(test.param));
    });

TEST(NcclFailure, AWaitingRankHearsOfALostOne) {
  std::atomic<int> unavailable = 0;
  try {
    run_ranks(3, [&](std::unique_ptr<Communicator> nccl, Allocator& gpu) {
      if (nccl->rank() == 1) throw std::runtime_error("rank 1 fails");
      Tensor x = Tensor::zeros(gpu, {1000});
      try {
        nccl->all_reduce(x, ReduceOp::kSum);
        x.to_vector<float>();
        ADD_FAILURE() << "the sum came without rank 1";
      } catch (const StatusError& error) {
        if (error.status().code() == Code::kUnavailable) ++unavailable;
        EXPECT_THROW(nccl->all_reduce(x, ReduceOp::kSum), StatusError);  // aborted for good
        throw;
      }
    });
    ADD_FAILURE() << "no exception";
  } catch (const std::exception&) {
  }
  EXPECT_EQ(unavailable, 2);
}

}  // namespace
}  // namespace weft
