// The suite of collectives over MPI; started by mpirun. `--ranks N` is how many ranks there must
// be: a program that finds itself alone has no transport to test and fails.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "cluster/comm/mpi/mpi_world.h"
#include "tests/cluster/comm/collective_cases.h"
#include "tests/cluster/comm/mismatch_cases.h"

namespace weft {
namespace {

comm::MpiWorld* mpi = nullptr;

class Mpi : public ::testing::TestWithParam<testing::CollectiveCase> {};

// A rank that failed must not leave the others to guess.
void expect_no_failure(Communicator& world, Allocator& allocator) {
  Tensor failed = Tensor::full(allocator, {1}, ::testing::Test::HasFailure() ? 1 : 0, DType::kI64);
  world.all_reduce(failed, ReduceOp::kSum);
  EXPECT_EQ(failed.data<int64_t>()[0], 0) << "a rank failed";
}

TEST_P(Mpi, Collective) {
  const auto allocator = make_caching_allocator();
  const auto world = mpi->world();
  GetParam().run(*world, *allocator);
  Activity activity;
  const auto watched = comm::watched(mpi->world(), activity, {.compare = true});
  GetParam().run(*watched, *allocator);
  expect_no_failure(*world, *allocator);
}
INSTANTIATE_TEST_SUITE_P(All, Mpi,
                         ::testing::ValuesIn(testing::collective_cases().begin(),
                                             testing::collective_cases().end()),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(MpiMismatch, IsToldByAllRanks) {
  const auto allocator = make_caching_allocator();
  const auto world = mpi->world();
  testing::expect_mismatches_told([] { return mpi->world(); });
  expect_no_failure(*world, *allocator);
}

// Rank 1 fails while the others wait for it; abort() must release them.
int one_gives_up() {
  const auto world = mpi->world();
  if (world->rank() == 1) comm::MpiWorld::abort(3);
  world->barrier();
  return 0;
}

int run(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  auto world = comm::MpiWorld::create();
  if (!world) {
    std::fprintf(stderr, "%s\n", world.error().to_string().c_str());
    return 1;
  }
  mpi = world->get();
  if (argc == 2 && std::string(argv[1]) == "--one-gives-up") return one_gives_up();
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
