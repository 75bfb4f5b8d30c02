// The attention mechanisms beyond scaled dot products: queries that see nothing, causality to the
// bit, memory. Values and gradients are in the ops' case table.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/attention/linear.h"
#include "kernels/attention/local.h"
#include "kernels/attention/scores.h"
#include "kernels/attention/structured.h"
#include "tests/testing/gradient_check.h"

namespace weft::attention {
namespace {

using testing::Bench;
using testing::random_tensor;

Tensor bytes(Context& cx, Shape shape, const std::vector<uint8_t>& values) {
  return Tensor::from<uint8_t>(cx.allocator, shape, values);
}

// Of two rows (queries, sentences) the second sees nothing: zeros, and no gradient through it.
void expect_second_half_is_nothing(Context& cx, Tape& tape, const Tensor& y, const Tensor& x) {
  const std::vector<float> values = y.to_vector<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    const bool second = i >= values.size() / 2;
    EXPECT_EQ(values[i] == 0, second) << i;
  }
  tape.backward(cx, y);
  const std::vector<float> gradient = x.grad().to_vector<float>();
  for (size_t i = 0; i < gradient.size(); ++i) {
    EXPECT_TRUE(std::isfinite(gradient[i]));
    if (i >= gradient.size() / 2) {
      EXPECT_EQ(gradient[i], 0) << i;
    }
  }
}

TEST(Mechanisms, AQueryThatSeesNothingGivesZeros) {
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  const Tensor values = random_tensor<float>(bench.context, {1, 3, 4}, 1);
  const Tensor visible = bytes(cx, {1, 2, 3}, {1, 0, 1, 0, 0, 0});
  const auto scores = [&] {
    return random_tensor<float>(bench.context, {1, 2, 3}, 2).set_requires_grad(true);
  };
  const Tensor soft = scores(), near = scores(), bell = scores();
  expect_second_half_is_nothing(cx, bench.tape, attend(cx, soft, values, visible).context, soft);
  expect_second_half_is_nothing(cx, bench.tape,
                                local_monotonic(cx, near, values, 1, visible).context, near);
  const Tensor position = Tensor::full(cx.allocator, {1, 2}, 0.5);
  expect_second_half_is_nothing(
      cx, bench.tape, local_predictive(cx, bell, values, position, 2, visible).context, bell);
}

TEST(Mechanisms, ASentenceOfPaddingGivesZeros) {
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  const Tensor valid = bytes(cx, {2, 3}, {1, 1, 0, 0, 0, 0});
  Tensor h = random_tensor<float>(bench.context, {2, 3, 4}, 1);
  h.set_requires_grad(true);
  const Tensor w1 = random_tensor<float>(cx, {5, 4}, 2), w2 = random_tensor<float>(cx, {2, 5}, 3);
  expect_second_half_is_nothing(cx, bench.tape,
                                structured_self_attention(cx, h, w1, w2, valid).context, h);
  for (const bool causal : {false, true}) {
    Tensor x = random_tensor<float>(bench.context, {2, 1, 3, 4}, 1);
    x.set_requires_grad(true);
    const Tensor y = linear_attention(cx, x, x, x, causal, valid);
    expect_second_half_is_nothing(cx, bench.tape, y, x);
  }
}

TEST(Mechanisms, AKeyAfterTheQueryChangesNoBitOfLinearAttention) {
  Bench bench;
  Context& cx = bench.context;
  const Tensor x = random_tensor<float>(cx, {1, 1, 200, 8}, 1);
  const std::vector<float> before = linear_attention(cx, x, x, x, true).to_vector<float>();
  const Tensor keys = ops::contiguous(cx, ops::scale(cx, x, 1));
  for (int64_t i = 130 * 8; i < 200 * 8; ++i) keys.data<float>()[i] += 3;
  const std::vector<float> after = linear_attention(cx, x, keys, keys, true).to_vector<float>();
  for (size_t i = 0; i < 130 * 8; ++i) ASSERT_EQ(before[i], after[i]) << i;
  EXPECT_NE(before[150 * 8], after[150 * 8]);
}

// In units of q; the scores would be 2048. What stands is a handful of tensors of q's size, those
// of the composition around the product.
TEST(Mechanisms, MemoryOfLinearAttentionIsLinearInTheTokens) {
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  std::vector<Tensor> inputs;
  for (uint64_t i = 0; i < 3; ++i) {
    Tensor x = random_tensor<float>(bench.context, {1, 1, 32768, 16}, i);
    inputs.push_back(x.set_requires_grad(true));
  }
  const auto unit = static_cast<double>(inputs[0].bytes());
  cx.allocator.reset_peak();
  const Tensor y = linear_attention(cx, inputs[0], inputs[1], inputs[2], true);
  EXPECT_LT(static_cast<double>(cx.allocator.stats().peak_bytes), 12 * unit);
  cx.allocator.reset_peak();
  bench.tape.backward(cx, y);
  EXPECT_LT(static_cast<double>(cx.allocator.stats().peak_bytes), 20 * unit);
  for (const Tensor& x : inputs) {
    EXPECT_TRUE(std::isfinite(testing::at_flat<float>(x.grad(), x.elements() - 1)));
  }
}

}  // namespace
}  // namespace weft::attention
