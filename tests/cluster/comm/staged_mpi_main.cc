// The suite of collectives of ranks that share a GPU, one of fibers, over MPI by way of pinned
// memory; started by mpirun. `--ranks N` is how many ranks there must be.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>

#include "cluster/comm/mpi/mpi_world.h"
#include "cluster/comm/rank_gpu.h"
#include "tests/cluster/comm/by_gpu.h"
#include "tests/cluster/comm/collective_cases.h"
#include "tests/testing/nccl_on_cpu/nccl_on_cpu.h"

namespace weft {
namespace {

comm::MpiWorld* mpi = nullptr;

class StagedMpi : public ::testing::TestWithParam<testing::CollectiveCase> {};

TEST_P(StagedMpi, Collective) {
  auto place = comm::take_gpu(mpi->world(), "");
  ASSERT_TRUE(place) << place.error().to_string();
  EXPECT_EQ(nccl_on_cpu::communicators(), 0);
  testing::ByGpu comm(std::move(place->world), *place->memory);
  const auto host = make_caching_allocator();
  GetParam().run(comm, *host);
  // A rank that failed must not leave the others to guess.
  Tensor failed = Tensor::full(*host, {1}, HasFailure() ? 1 : 0, DType::kI64);
  comm.all_reduce(failed, ReduceOp::kSum);
  EXPECT_EQ(failed.data<int64_t>()[0], 0) << "a rank failed";
}
INSTANTIATE_TEST_SUITE_P(All, StagedMpi,
                         ::testing::ValuesIn(testing::collective_cases().begin(),
                                             testing::collective_cases().end()),
                         [](const auto& test) { return std::string(test.param.name); });

int run(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  auto world = comm::MpiWorld::create();
  if (!world) {
    std::fprintf(stderr, "%s\n", world.error().to_string().c_str());
    return 1;
  }
  mpi = world->get();
  const int ranks = argc == 3 && std::string(argv[1]) == "--ranks" ? std::atoi(argv[2]) : 0;
  if (mpi->size() != ranks) {
    std::fprintf(stderr, "%d ranks, --ranks says %d\n", mpi->size(), ranks);
    comm::MpiWorld::abort(2);
  }
  try {
    return RUN_ALL_TESTS();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d: %s\n", mpi->rank(), error.what());
    comm::MpiWorld::abort(3);
  }
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) { return weft::run(argc, argv); }
