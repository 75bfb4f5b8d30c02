// The self-test's own logic, on the harness.
#include "tests/kernels/cuda/self_test/self_test.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "tests/testing/cuda_on_cpu/machine.h"
#include "tests/testing/cuda_on_cpu/meaning.h"

namespace weft::cuda {
namespace {

TEST(CudaSelfTest, FindsEveryInstructionOfTheHarnessAsItIsMeant) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kReverse});
  const std::vector<SelfTestResult> results = self_test();
  EXPECT_GE(results.size(), 11U);
  for (const SelfTestResult& result : results) EXPECT_EQ(result.finding, "") << result.instruction;
}

// One product of 16 x 8 by 8 x 8 whose elements are all the same, on top of `start`.
float sum_of_eight(float start, float factor) {
  float d[32][4];
  uint32_t a[4], b[2];
  cuda_on_cpu::Lanes<float*> to;
  cuda_on_cpu::Lanes<const uint32_t*> left, right;
  for (uint32_t& word : a) word = std::bit_cast<uint32_t>(1.0F);
  for (uint32_t& word : b) word = std::bit_cast<uint32_t>(factor);
  for (int lane = 0; lane < 32; ++lane) {
    std::fill_n(d[lane], 4, start);
    to[lane] = d[lane];
    left[lane] = a;
    right[lane] = b;
  }
  cuda_on_cpu::multiply_of(cuda_on_cpu::Element::kTf32, to, left, right);
  return d[31][3];
}

TEST(TensorCores, CutTermsOffBelowTheLargest) {
  EXPECT_EQ(sum_of_eight(1, 0x1p-25F), 1 + 0x1p-22F);
  EXPECT_EQ(sum_of_eight(1, 0x1p-26F), 1);   // in truth 1 + 2^-23
  EXPECT_EQ(sum_of_eight(1, -0x1p-26F), 1);  // in truth 1 - 2^-23
  EXPECT_EQ(sum_of_eight(0, 0x1p-26F), 0x1p-23F);
  EXPECT_EQ(sum_of_eight(0x1p-24F, 0.5F + 0x1p-10F), 4 + 0x1p-7F);
  EXPECT_EQ(sum_of_eight(-0x1.8p-23F, -0.125F), -1 - 0x1p-23F);  // the sum's last bit too
}

}  // namespace
}  // namespace weft::cuda
