#include "cluster/comm/threads/thread_ranks.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

TEST(ThreadRanks, TheFirstFailureComesBack) {
  const auto body = [](Rank& rank) {
    if (rank.mesh.index(Axis::kWorld) == 1) throw StatusError(Status::invalid("a", "b", "c"));
    rank.mesh.axis(Axis::kWorld).barrier();
  };
  try {
    run_on_threads({.data = 3}, body);
    FAIL();
  } catch (const StatusError& error) {
    EXPECT_EQ(error.status().field(), "a");
  }
}

}  // namespace
}  // namespace weft
