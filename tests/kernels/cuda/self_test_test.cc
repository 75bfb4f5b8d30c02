// The self-test's own logic, on the harness.
#include "tests/kernels/cuda/self_test/self_test.h"

#include <gtest/gtest.h>

#include "tests/testing/cuda_on_cpu/machine.h"

namespace weft::cuda {
namespace {

TEST(CudaSelfTest, FindsEveryInstructionOfTheHarnessAsItIsMeant) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kReverse});
  const std::vector<SelfTestResult> results = self_test();
  EXPECT_GE(results.size(), 11U);
  for (const SelfTestResult& result : results) EXPECT_EQ(result.finding, "") << result.instruction;
}

}  // namespace
}  // namespace weft::cuda
