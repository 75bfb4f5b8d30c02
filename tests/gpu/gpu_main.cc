// weft-gpu: everything of ours that runs on a GPU, in one program that needs the driver, cuBLAS
// and, for several GPUs, NCCL:
//   weft-gpu self-test            the instructions against the meaning that the tests give them
//   weft-gpu ops [GTEST FLAGS]    the case table of the ops, and attention, against the CPU
//   weft-gpu topology [GTEST FLAGS]  topology-invariant training, meshes against one rank
//   weft-gpu golden ARGUMENTS     weft-golden
//   weft-gpu collectives | lost-rank | trajectory
//                                 NCCL with ranks that are processes on one GPU
//   weft-gpu bench [OPTIONS]      rates (bench_program.h)
#include <gtest/gtest.h>

#include <cstdio>
#include <string_view>

#include "cluster/golden/golden_program.h"
#include "proto/base/status.h"
#include "tests/gpu/bench_program.h"
#include "tests/gpu/nccl_ranks.h"
#include "tests/gpu/topology_sizes.h"
#include "tests/kernels/cuda/schedule.h"
#include "tests/kernels/cuda/self_test/self_test.h"

namespace weft {

void vary_schedule(uint64_t) {}

// Of the last no block's bytes are a multiple of what products align to.
std::vector<gpu::TopologySize> gpu::topology_sizes() {
  return {{"Even", 2, 8, 512, 256, 8, 8, 0}, {"Odd", 1, 4, 24, 8, 4, 4, 0.1}};
}

namespace {

int self_test() {
  int wrong = 0;
  for (const cuda::SelfTestResult& result : cuda::self_test()) {
    const bool right = result.finding.empty();
    wrong += right ? 0 : 1;
    std::printf("%-42s %s\n", result.instruction.c_str(),
                right ? "as on the CPU" : result.finding.c_str());
  }
  return wrong == 0 ? 0 : 1;
}

// Those whose name the pattern matches, where the flags name no others.
int run_tests(const char* pattern, int argc, char** argv) {
  GTEST_FLAG_SET(filter, pattern);
  int left = argc - 1;
  ::testing::InitGoogleTest(&left, argv + 1);
  return RUN_ALL_TESTS();
}

int run(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what == "self-test") return self_test();
  if (what == "golden") return golden_program(argc - 1, argv + 1);
  if (what == "collectives") return gpu::collectives(argc - 1, argv + 1);
  if (what == "lost-rank") return gpu::lost_rank(argc - 1, argv + 1);
  if (what == "trajectory") return gpu::trajectory(argc - 1, argv + 1);
  if (what == "bench") return gpu::bench_program(argc - 1, argv + 1);
  if (what == "ops") return run_tests("-*Topology*", argc, argv);
  if (what == "topology") return run_tests("*Topology*", argc, argv);
  const bool asked = what == "--help" || what == "-h";
  std::fprintf(asked ? stdout : stderr,
               "usage: weft-gpu self-test | ops | topology | golden | collectives | lost-rank | "
               "trajectory | bench\n");
  return asked ? 0 : 2;
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  try {
    return weft::run(argc, argv);
  } catch (const weft::StatusError& error) {
    std::fprintf(stderr, "weft-gpu: %s\n", error.what());
    return 2;
  }
}
