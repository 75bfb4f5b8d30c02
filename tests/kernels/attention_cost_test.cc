// What attention may use: memory linear in the tokens, and no work on tiles that nobody sees.
#include <gtest/gtest.h>

#include "kernels/attention/attention.h"
#include "kernels/attention/mask.h"
#include "kernels/attention/problem.h"
#include "tests/testing/gradient_check.h"

namespace weft::attention {
namespace {

using testing::Bench;

// Peak bytes of a forward and of a backward pass, inputs and outputs included, in units of q.
struct Peaks {
  double forward = 0, backward = 0;
};

Peaks peaks_of(DType dtype, int64_t heads, int64_t tokens, int64_t features, int64_t window) {
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  std::vector<Tensor> inputs;
  for (int i = 0; i < 3; ++i) {
    Tensor x = Tensor::empty(cx.allocator, {1, heads, tokens, features});
    for (int64_t n = 0; n < x.elements(); ++n) {
      x.data<float>()[n] = static_cast<float>((n * 7919 + i) % 2003) * 0x1p-10F - 1;
    }
    x = ops::cast(bench.context, x, dtype).detach();
    inputs.push_back(x.set_requires_grad(true));
  }
  const double unit = static_cast<double>(inputs[0].bytes());
  Parameters parameters;
  parameters.scale = 0.25;
  parameters.visibility.causal = true;
  parameters.visibility.window_left = window;
  const auto peak = [&] { return static_cast<double>(cx.allocator.stats().peak_bytes) / unit; };
  Peaks peaks;
  cx.allocator.reset_peak();
  const Tensor y = scaled_dot_product(cx, inputs[0], inputs[1], inputs[2], parameters);
  peaks.forward = peak();
  cx.allocator.reset_peak();
  bench.tape.backward(cx, y);
  peaks.backward = peak();
  for (const Tensor& x : inputs) {
    for (const int64_t at : {int64_t{0}, x.elements() - 1}) {
      EXPECT_TRUE(std::isfinite(testing::at_flat<float>(x.grad(), at)));
    }
  }
  return peaks;
}

// Scores would be 2048 units of q. Forward: q, k, v, the output, the sums of its rows and a
// thread's scratch. Backward, also the gradients (three; in bf16 of leaves, in fp32, three times
// two) and the sums of the queries' gradients over at most sixteen heads' worth of chunks, in fp32.
TEST(AttentionMemory, IsLinearInTheTokens) {
  constexpr int64_t kTokens = 32768, kFeatures = 16;
  const Peaks one_head = peaks_of(DType::kF32, 1, kTokens, kFeatures, -1);
  EXPECT_LT(one_head.forward, 4.5);
  EXPECT_LT(one_head.backward, 4.5 + 5 + 16);
  const Peaks half = peaks_of(DType::kBF16, 1, kTokens, kFeatures, -1);
  EXPECT_LT(half.forward, 5);
  EXPECT_LT(half.backward, 5 + 10 + 2 * 16);
}

TEST(AttentionMemory, OfManyHeadsIsThatOfTheTensors) {
  constexpr int64_t kTokens = 32768, kFeatures = 16;
  const Peaks window = peaks_of(DType::kF32, 16, kTokens, kFeatures, 256);
  EXPECT_LT(window.forward, 4.2);
  EXPECT_LT(window.backward, 4.2 + 4 + 0.5);
}

// Keys by queries of all tiles that are worked on.
int64_t area(Context& cx, const Visibility& visibility, int64_t tokens) {
  const Mask mask(cx, visibility, false, 1, 1, tokens, tokens);
  int64_t total = 0;
  for (int64_t query = 0; query < tokens; query += kLanes) {
    const Span seen = mask.keys_seen(0, query);
    for (int64_t key = seen.begin; key < seen.end; key += kLanes) {
      const Tile tile{
          0, 0, query, std::min(kLanes, tokens - query), key, std::min(kLanes, seen.end - key)};
      if (mask.view(tile) != TileView::kNone) total += tile.queries * tile.keys;
    }
  }
  return total;
}

TEST(AttentionCost, FollowsTheVisibleArea) {
  Bench bench;
  Context& cx = bench.context;
  constexpr int64_t kTokens = 4096;
  Visibility causal;
  causal.causal = true;
  EXPECT_LE(area(cx, causal, kTokens), kTokens * (kTokens + kLanes) / 2);
  Visibility window = causal;
  window.window_left = 255;
  EXPECT_LE(area(cx, window, kTokens), kTokens * (256 + kLanes));
  // Documents of 100, 200, 300, ... tokens: each sees itself, to the width of a tile.
  Visibility packed;
  packed.query_document = packed.key_document =
      Tensor::empty(cx.allocator, {1, kTokens}, DType::kI64);
  int64_t visible = 0;
  for (int64_t token = 0, document = 0; token < kTokens; ++document) {
    const int64_t length = std::min((document + 1) * 100, kTokens - token);
    for (int64_t i = 0; i < length; ++i) packed.key_document.data<int64_t>()[token + i] = document;
    token += length;
    visible += length * length;
  }
  EXPECT_LE(area(cx, packed, kTokens), visible + 2 * kTokens * kLanes);
  // A mask of squares along the diagonal.
  Visibility squares;
  squares.mask = Tensor::zeros(cx.allocator, {1, 1, kTokens, kTokens}, DType::kU8);
  for (int64_t i = 0; i < kTokens; ++i) {
    std::fill_n(squares.mask.data<uint8_t>() + i * kTokens + i / 512 * 512, 512, uint8_t{1});
  }
  EXPECT_EQ(area(cx, squares, kTokens), kTokens * 512);
}

}  // namespace
}  // namespace weft::attention
