// The suite of collectives of ranks that share a GPU, one of fibers, over MPI by way of pinned
// memory; started by mpirun. `--ranks N` is how many ranks there must be.
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "cluster/comm/rank_gpu.h"
#include "tests/cluster/comm/by_gpu.h"
#include "tests/cluster/comm/collective_cases.h"
#include "tests/cluster/comm/mpi_suite.h"
#include "tests/testing/nccl_on_cpu/nccl_on_cpu.h"

namespace weft {
namespace {

class StagedMpi : public ::testing::TestWithParam<testing::CollectiveCase> {};

TEST_P(StagedMpi, Collective) {
  auto place = comm::take_gpu(testing::mpi().world(), "");
  ASSERT_TRUE(place) << place.error().to_string();
  EXPECT_EQ(nccl_on_cpu::communicators(), 0);
  testing::ByGpu comm(std::move(place->world), *place->memory);
  const auto host = make_caching_allocator();
  GetParam().run(comm, *host);
  testing::expect_no_failure(comm, *host);
}
INSTANTIATE_TEST_SUITE_P(All, StagedMpi,
                         ::testing::ValuesIn(testing::collective_cases().begin(),
                                             testing::collective_cases().end()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  return weft::testing::run_over_mpi([&] { return weft::testing::run_suite(argc, argv); });
}
