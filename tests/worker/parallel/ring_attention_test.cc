// Ring attention against attention over the whole sequence: outputs and gradients in float64, and
// how much memory a rank may use.
#include "worker/parallel/ring_attention.h"

#include <gtest/gtest.h>

#include <tuple>

#include "tests/testing/rank_runner.h"
#include "tests/worker/parallel/shards.h"

namespace weft::parallel {
namespace {

using attention::Parameters;
using testing::cut;
using testing::drawn;
using testing::expect_near;
using testing::leaf;

constexpr int64_t kRows = 2, kHeads = 4, kFeatures = 3, kValues = 5;

struct Case {
  const char* name;
  bool causal = false, padding = false, documents = false, positions = false;
  double dropout = 0;
  int64_t key_heads = kHeads;
  int64_t left = -1, right = -1;
  bool alibi = false;
};

constexpr Case kCases[] = {
    {"Plain"},
    {"Causal", true},
    {"Padding", false, true},
    {"CausalPaddingDocuments", true, true, true},
    {"Dropout", true, false, false, false, 0.3},
    {"GroupedDropoutPadding", false, true, false, false, 0.2, 2},
    {"GivenPositions", true, true, false, true, 0.1},
    {"CausalWindow", true, false, false, false, 0, kHeads, 2},
    {"WindowDocuments", false, false, true, false, 0, 2, 3, 1},
    {"AlibiSoftCap", false, false, false, false, 0, kHeads, -1, -1, true},
};

// Row-major [kRows, tokens], by a function of (row, token).
template <typename T, typename F>
Tensor by_token(Context& cx, int64_t tokens, F value) {
  Tensor tensor = Tensor::empty(cx.allocator, {kRows, tokens}, DTypeOf<T>::value);
  for (int64_t i = 0; i < tensor.elements(); ++i) {
    tensor.data<T>()[i] = static_cast<T>(value(i / tokens, i % tokens));
  }
  return tensor;
}

Parameters whole_parameters(Context& cx, const Case& c, int64_t tokens) {
  Parameters p;
  p.scale = 0.6;
  p.visibility.causal = c.causal;
  p.visibility.window_left = c.left;
  p.visibility.window_right = c.right;
  if (c.alibi) {
    p.alibi_slopes = {0.5, 0.25, 0.125, 0.0625};
    p.soft_cap = 2;
  }
  if (c.padding) {  // row 0 pads on the right, row 1 on the left
    p.visibility.key_valid = by_token<uint8_t>(cx, tokens, [&](int64_t row, int64_t token) {
      return row == 0 ? token + 2 < tokens || token == 0 : token > 1;
    });
  }
  if (c.documents) {
    p.visibility.query_document = p.visibility.key_document =
        by_token<int64_t>(cx, tokens, [](int64_t row, int64_t token) { return (token + row) / 4; });
  }
  if (c.positions) {  // the later tokens come first
    p.visibility.query_position = p.visibility.key_position =
        by_token<int64_t>(cx, tokens, [&](int64_t, int64_t token) { return tokens - 1 - token; });
  }
  p.dropout = {c.dropout, {5, 6}, kRows, kHeads, tokens, tokens};
  return p;
}

Parameters local_parameters(Context& cx, const Communicator& ring, const Parameters& whole) {
  Parameters p = whole;
  attention::Visibility& seen = p.visibility;
  for (Tensor* tensor : {&seen.query_position, &seen.key_position, &seen.key_valid,
                         &seen.query_document, &seen.key_document}) {
    if (*tensor) *tensor = cut(cx, ring, *tensor, 1);
  }
  return p;
}

void compare(Rank& rank, const Case& c, int64_t tokens) {
  SCOPED_TRACE(std::string(c.name) + " tokens " + std::to_string(tokens));
  Communicator& ring = rank.mesh.axis(Axis::kSequence);
  Context cx = rank.context();
  Tape tape;
  cx.tape = &tape;
  const Tensor q = leaf(drawn(cx, {kRows, kHeads, tokens, kFeatures}, 1));
  const Tensor k = leaf(drawn(cx, {kRows, c.key_heads, tokens, kFeatures}, 2));
  const Tensor v = leaf(drawn(cx, {kRows, c.key_heads, tokens, kValues}, 3));
  const Tensor weight = drawn(cx, {kRows, kHeads, tokens, kValues}, 4);
  const Parameters parameters = whole_parameters(cx, c, tokens);
  const Tensor whole = attention::scaled_dot_product(cx, q, k, v, parameters);
  tape.backward(cx, whole, weight);

  const Tensor own_q = leaf(cut(cx, ring, q, 2)), own_k = leaf(cut(cx, ring, k, 2)),
               own_v = leaf(cut(cx, ring, v, 2));
  const Tensor part =
      ring_attention(cx, ring, own_q, own_k, own_v, tokens, local_parameters(cx, ring, parameters));
  expect_near(part, cut(cx, ring, whole, 2), 1e-12, "output");
  tape.backward(cx, part, cut(cx, ring, weight, 2));
  expect_near(own_q.grad(), cut(cx, ring, q.grad(), 2), 1e-12, "q");
  expect_near(own_k.grad(), cut(cx, ring, k.grad(), 2), 1e-12, "k");
  expect_near(own_v.grad(), cut(cx, ring, v.grad(), 2), 1e-12, "v");
}

class RingAttention : public ::testing::TestWithParam<std::tuple<int, Case>> {};

TEST_P(RingAttention, IsAttentionOverTheWhole) {
  const int ranks = std::get<0>(GetParam());
  testing::run_mesh({.sequence = ranks}, [](Rank& rank) {
    for (int64_t tokens : {12, 7, 2}) compare(rank, std::get<1>(GetParam()), tokens);
  });
}

INSTANTIATE_TEST_SUITE_P(Rings, RingAttention,
                         ::testing::Combine(::testing::Range(1, 5), ::testing::ValuesIn(kCases)),
                         [](const auto& test) {
                           return std::string(std::get<1>(test.param).name) +
                                  std::to_string(std::get<0>(test.param));
                         });

// In units of one tensor [B, N, T, D] of a rank. Forwards: the visiting keys and values (2), the
// output so far and the block's (2), and less than one for the rest: 5. A third block on the rank
// would make it 6 or more. Backwards, what is saved was there before: the visiting block (2), the
// gradients of q, k and v so far and of the block (6), less than one for the rest.
TEST(RingAttentionMemory, NeverMoreThanTwoBlocks) {
  constexpr int64_t kTokens = 256, kWidth = 64;
  for (int ranks : {2, 3, 4}) {
    testing::run_mesh({.sequence = ranks}, [&](Rank& rank) {
      Context cx = rank.context();
      Tape tape;
      cx.tape = &tape;
      const Shape shape{1, 16, kTokens, kWidth};
      const Tensor q = leaf(drawn(cx, shape, 1, DType::kF32)),
                   k = leaf(drawn(cx, shape, 2, DType::kF32)),
                   v = leaf(drawn(cx, shape, 3, DType::kF32));
      const double unit = static_cast<double>(k.bytes());
      const auto used = [&](auto&& work) {
        const int64_t before = rank.allocator->stats().live_bytes;
        rank.allocator->reset_peak();
        work();
        return static_cast<double>(rank.allocator->stats().peak_bytes - before) / unit;
      };
      Parameters parameters;
      parameters.visibility.causal = true;
      Tensor y;
      const double forwards = used([&] {
        y = ring_attention(cx, rank.mesh.axis(Axis::kSequence), q, k, v, ranks * kTokens,
                           parameters);
      });
      const Tensor seed = Tensor::full(cx.allocator, shape, 1);
      const double backwards = used([&] { tape.backward(cx, y, seed); });
      EXPECT_LT(forwards, 5) << "rank " << rank.mesh.index(Axis::kSequence) << " of " << ranks;
      EXPECT_LT(backwards, 9) << "rank " << rank.mesh.index(Axis::kSequence) << " of " << ranks;
      if (rank.mesh.index(Axis::kSequence) > 0) {  // otherwise the bound is no bound
        EXPECT_GT(forwards, 4);
        EXPECT_GT(backwards, 8);
      }
    });
  }
}

// Of bf16, partial results stay fp32: the ring is off by roundings of inputs and results alone, no
// matter how many ranks there are.
TEST(RingAttentionHalf, IsTheWholeButForOneRounding) {
  testing::run_mesh({.sequence = 4}, [](Rank& rank) {
    Communicator& ring = rank.mesh.axis(Axis::kSequence);
    Context cx = rank.context();
    Tape tape;
    cx.tape = &tape;
    constexpr int64_t kTokens = 48;
    std::vector<Tensor> inputs, parts;
    for (const uint64_t seed : {1, 2, 3}) {
      const Tensor x = drawn(cx, {1, 2, kTokens, 8}, seed);
      inputs.push_back(leaf(ops::cast(cx, x, DType::kBF16).detach()));
      parts.push_back(leaf(cut(cx, ring, inputs.back(), 2)));
    }
    const Tensor weight = ops::cast(cx, drawn(cx, {1, 2, kTokens, 8}, 4), DType::kBF16);
    Parameters parameters;
    parameters.visibility.causal = true;
    const Tensor whole =
        attention::scaled_dot_product(cx, inputs[0], inputs[1], inputs[2], parameters);
    tape.backward(cx, whole, weight);
    const Tensor part = ring_attention(cx, ring, parts[0], parts[1], parts[2], kTokens, parameters);
    ASSERT_EQ(part.dtype(), DType::kBF16);
    tape.backward(cx, part, cut(cx, ring, weight, 2));
    const auto wide = [&](const Tensor& x) { return ops::cast(cx, x.detach(), DType::kF64); };
    expect_near(wide(part), wide(cut(cx, ring, whole, 2)), 0x1p-6, "output");
    for (size_t i = 0; i < parts.size(); ++i) {
      EXPECT_EQ(parts[i].grad().dtype(), DType::kF32);
      expect_near(wide(parts[i].grad()), wide(cut(cx, ring, inputs[i].grad(), 2)), 0x1p-5,
                  "a gradient");
    }
  });
}

// Causal blocks that nobody may see are not sent either.
TEST(RingAttentionTraffic, InvisibleBlocksStayAtHome) {
  testing::run_mesh({.sequence = 4}, [](Rank& rank) {
    Context cx = rank.context();
    Communicator& ring = rank.mesh.axis(Axis::kSequence);
    const Tensor x = drawn(cx, {1, 2, 8, 4}, 1);
    Parameters parameters;
    parameters.visibility.causal = true;
    const int64_t before = ring.bytes_sent();
    ring_attention(cx, ring, x, x, x, 32, parameters);
    const int64_t block = 2 * static_cast<int64_t>(x.bytes()) + 8 * 8;  // with its positions
    EXPECT_EQ(ring.bytes_sent() - before, (3 - ring.rank()) * block);
    parameters.visibility.window_left = 3;  // reaches into the block before alone
    const int64_t then = ring.bytes_sent();
    ring_attention(cx, ring, x, x, x, 32, parameters);
    EXPECT_EQ(ring.bytes_sent() - then, ring.rank() < 3 ? block : 0);
  });
}

}  // namespace
}  // namespace weft::parallel
