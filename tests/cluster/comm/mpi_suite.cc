#include "tests/cluster/comm/mpi_suite.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

namespace weft::testing {
namespace {

comm::MpiWorld* world_of_all = nullptr;

}  // namespace

comm::MpiWorld& mpi() { return *world_of_all; }

int run_over_mpi(const std::function<int()>& body) {
  const auto world = comm::MpiWorld::create();
  if (!world) {
    std::fprintf(stderr, "%s\n", world.error().to_string().c_str());
    return 1;
  }
  world_of_all = world->get();
  try {
    return body();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d: %s\n", mpi().rank(), error.what());
    comm::MpiWorld::abort(3);
  }
}

int run_suite(int argc, char** argv) {
  const int ranks = argc >= 3 && std::string(argv[1]) == "--ranks" ? std::atoi(argv[2]) : 0;
  if (mpi().size() != ranks) {
    std::fprintf(stderr, "%d ranks, --ranks says %d\n", mpi().size(), ranks);
    comm::MpiWorld::abort(2);
  }
  return RUN_ALL_TESTS();
}

void expect_no_failure(Communicator& world, Allocator& allocator) {
  Tensor failed = Tensor::full(allocator, {1}, ::testing::Test::HasFailure() ? 1 : 0, DType::kI64);
  world.all_reduce(failed, ReduceOp::kSum);
  EXPECT_EQ(failed.data<int64_t>()[0], 0) << "a rank failed";
}

}  // namespace weft::testing
