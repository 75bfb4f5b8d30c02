// The benchmark of a GPU runs, at its smallest, on one that is made of fibers.
#include "tests/gpu/gpu_bench.h"

#include <gtest/gtest.h>

#include <set>

namespace weft::gpu {
namespace {

TEST(GpuBench, MeasuresEachKind) {
  std::set<std::string> units, names;
  run_bench({.smallest = true, .runs = 1}, [&](const Measure& measure) {
    EXPECT_GT(measure.seconds, 0) << measure.name;
    EXPECT_GT(measure.rate, 0) << measure.name;
    EXPECT_TRUE(names.insert(measure.name).second) << measure.name;
    units.insert(measure.unit);
  });
  EXPECT_EQ(units, (std::set<std::string>{"GB/s", "TFLOP/s", "tokens/s"}));
}

}  // namespace
}  // namespace weft::gpu
