// Attention spread over the sequence axis against attention over the whole row: outputs and
// gradients in float64 for rings, Ulysses and grids of both, and what a rank may use of memory and
// may send.
#include "worker/parallel/sequence_attention.h"

#include <gtest/gtest.h>

#include <numeric>
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
    {"CausalWindowDocumentsGrouped", true, true, true, false, 0.1, 2, 4},
    {"MultiQuery", true, false, true, false, 0.1, 1, 5},
    {"RestartingPositions", true, false, true, true, 0, 2, 3},
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
        by_token<int64_t>(cx, tokens, [](int64_t row, int64_t token) { return (token + row) / 6; });
  }
  if (c.positions) {  // in each document anew, or else the later tokens come first
    p.visibility.query_position = p.visibility.key_position =
        by_token<int64_t>(cx, tokens, [&](int64_t row, int64_t token) {
          return c.documents ? (token + row) % 6 : tokens - 1 - token;
        });
  }
  p.dropout = {c.dropout, {5, 6}, kRows, kHeads, tokens, tokens};
  return p;
}

// This rank's tokens of `whole` along dim, a copy outside autograd.
Tensor own_tokens(Context& cx, const SequenceLayout& layout, int rank, const Tensor& whole,
                  int dim) {
  const NoGrad inside(cx);
  std::vector<Tensor> parts{ops::slice(cx, whole.detach(), dim, 0, 0)};
  for (const Part& run : layout.runs(rank)) {
    parts.push_back(ops::slice(cx, whole.detach(), dim, run.start, run.length));
  }
  return clone(cx.pool, ops::concat(cx, parts, dim));
}

// Chunks of two tokens dealt out forth and back: rank r has r, 2n-1-r, 2n+r, ...
SequenceLayout dealt(int64_t tokens, int ranks) {
  std::vector<std::vector<Part>> runs(static_cast<size_t>(ranks));
  for (int64_t start = 0, chunk = 0; start < tokens; start += 2, ++chunk) {
    const int64_t place = chunk % ranks;
    const int64_t rank = chunk / ranks % 2 == 0 ? place : ranks - 1 - place;
    runs[static_cast<size_t>(rank)].push_back({start, std::min<int64_t>(2, tokens - start)});
  }
  return {tokens, std::move(runs)};
}

void compare(Rank& rank, const Case& c, const SequenceLayout& layout) {
  const int64_t tokens = layout.tokens();
  SCOPED_TRACE(std::string(c.name) + " tokens " + std::to_string(tokens));
  const int index = rank.mesh.index(Axis::kSequence);
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

  const auto mine = [&](const Tensor& x) { return own_tokens(cx, layout, index, x, 2); };
  const Tensor own_q = leaf(mine(q)), own_k = leaf(mine(k)), own_v = leaf(mine(v));
  const Tensor part = sequence_attention(cx, rank.mesh, layout, own_q, own_k, own_v, parameters);
  expect_near(part, mine(whole), 1e-12, "output");
  tape.backward(cx, part, mine(weight));
  expect_near(own_q.grad(), mine(q.grad()), 1e-12, "q");
  expect_near(own_k.grad(), mine(k.grad()), 1e-12, "k");
  expect_near(own_v.grad(), mine(v.grad()), 1e-12, "v");
}

// Ranks of the axis, and how many of them exchange heads.
using Grid = std::tuple<int, int>;

class SequenceAttention : public ::testing::TestWithParam<std::tuple<Grid, Case>> {};

TEST_P(SequenceAttention, IsAttentionOverTheWhole) {
  const auto& [grid, c] = GetParam();
  const auto [ranks, ulysses] = grid;
  testing::run_mesh({.sequence = ranks}, [&, ulysses = ulysses, ranks = ranks, &c = c](Rank& rank) {
    rank.mesh.divide_sequence(ulysses);
    for (const int64_t tokens : {29, 7, 2}) {
      compare(rank, c, SequenceLayout::contiguous(tokens, ranks));
      compare(rank, c, dealt(tokens, ranks / ulysses).divided(ulysses));
    }
  });
}

std::vector<Grid> grids() {
  std::vector<Grid> all;
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (int ulysses = 1; ulysses <= ranks; ++ulysses) {
      if (ranks % ulysses == 0) all.push_back({ranks, ulysses});
    }
  }
  return all;
}

std::string name_of(const ::testing::TestParamInfo<std::tuple<Grid, Case>>& test) {
  const auto [ranks, ulysses] = std::get<0>(test.param);
  return std::string(std::get<1>(test.param).name) + "Ring" + std::to_string(ranks / ulysses) +
         "Ulysses" + std::to_string(ulysses);
}

INSTANTIATE_TEST_SUITE_P(Grids, SequenceAttention,
                         ::testing::Combine(::testing::ValuesIn(grids()),
                                            ::testing::ValuesIn(kCases)),
                         name_of);

// The comparison sees a layout that is off by one token.
TEST(SequenceAttentionLayout, AWrongPositionIsSeen) {
  testing::run_mesh({.sequence = 3}, [](Rank& rank) {
    Context cx = rank.context();
    const int64_t tokens = 9;
    const SequenceLayout layout = SequenceLayout::contiguous(tokens, 3);
    const SequenceLayout shifted(tokens, {{{0, 1}, {4, 2}}, {{1, 3}}, {{6, 3}}});
    const Tensor x = drawn(cx, {1, 2, tokens, 4}, 1);
    Parameters parameters;
    parameters.visibility.causal = true;
    const Tensor whole = attention::scaled_dot_product(cx, x, x, x, parameters);
    const int index = rank.mesh.index(Axis::kSequence);
    const Tensor mine = own_tokens(cx, layout, index, x, 2);
    const auto right = own_tokens(cx, layout, index, whole, 2).to_vector<double>();
    const auto error = [&](const SequenceLayout& told) {
      const auto got =
          sequence_attention(cx, rank.mesh, told, mine, mine, mine, parameters).to_vector<double>();
      double largest = 0;
      for (size_t i = 0; i < got.size(); ++i) {
        largest = std::max(largest, std::abs(got[i] - right[i]));
      }
      return largest;
    };
    EXPECT_LT(error(layout), 1e-12);
    if (index < 2) {
      EXPECT_GT(error(shifted), 1e-3);
    } else {
      error(shifted);
    }
  });
}

// In units of one tensor [B, N, T, D] of a rank. Forwards: the keys and values that are computed on
// and those on their way (4), the output so far and the block's (2), and less than one for the
// rest. Backwards, what is saved was there before: keys and values (4), the gradients of q, k and v
// so far and of the block (6), those of k and v on their ways home (4), and less than one for the
// rest. One block more on the rank would be two units.
TEST(RingMemory, OneBlockIsComputedOnAndOneIsOnItsWay) {
  constexpr int64_t kTokens = 256, kWidth = 64;
  for (int ranks : {2, 3, 4, 5}) {
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
      Tensor y;
      const SequenceLayout layout = SequenceLayout::contiguous(ranks * kTokens, ranks);
      const double forwards =
          used([&] { y = sequence_attention(cx, rank.mesh, layout, q, k, v, {}); });
      const Tensor seed = Tensor::full(cx.allocator, shape, 1);
      const double backwards = used([&] { tape.backward(cx, y, seed); });
      EXPECT_LT(forwards, ranks == 2 ? 5 : 7) << ranks;
      EXPECT_LT(backwards, 15) << ranks;
      EXPECT_GT(forwards, 4);  // otherwise the bound is no bound
      EXPECT_GT(backwards, 8);
    });
  }
}

// Of bf16, partial results stay fp32: off by roundings of inputs and results alone, no matter how
// many ranks there are. A head of keys on several ranks is no exception.
TEST(SequenceAttentionHalf, IsTheWholeButForOneRounding) {
  for (const auto& [ranks, ulysses, key_heads] :
       {std::tuple{4, 1, 2}, {4, 4, 4}, {4, 4, 2}, {8, 4, 1}}) {
    testing::run_mesh({.sequence = ranks}, [&](Rank& rank) {
      rank.mesh.divide_sequence(ulysses);
      Context cx = rank.context();
      Tape tape;
      cx.tape = &tape;
      constexpr int64_t kTokens = 48;
      const SequenceLayout layout = dealt(kTokens, ranks / ulysses).divided(ulysses);
      const auto mine = [&](const Tensor& x) {
        return own_tokens(cx, layout, rank.mesh.index(Axis::kSequence), x, 2);
      };
      std::vector<Tensor> inputs, parts;
      for (const uint64_t seed : {1, 2, 3}) {
        const Tensor x = drawn(cx, {1, seed == 1 ? 4 : key_heads, kTokens, 8}, seed);
        inputs.push_back(leaf(ops::cast(cx, x, DType::kBF16).detach()));
        parts.push_back(leaf(mine(inputs.back())));
      }
      const Tensor weight = ops::cast(cx, drawn(cx, {1, 4, kTokens, 8}, 4), DType::kBF16);
      Parameters parameters;
      parameters.visibility.causal = true;
      const Tensor whole =
          attention::scaled_dot_product(cx, inputs[0], inputs[1], inputs[2], parameters);
      tape.backward(cx, whole, weight);
      const Tensor part =
          sequence_attention(cx, rank.mesh, layout, parts[0], parts[1], parts[2], parameters);
      ASSERT_EQ(part.dtype(), DType::kBF16);
      tape.backward(cx, part, mine(weight));
      const auto wide = [&](const Tensor& x) { return ops::cast(cx, x.detach(), DType::kF64); };
      expect_near(wide(part), wide(mine(whole)), 0x1p-6, "output");
      for (size_t i = 0; i < parts.size(); ++i) {
        EXPECT_EQ(parts[i].grad().dtype(), DType::kF32);
        expect_near(wide(parts[i].grad()), wide(mine(inputs[i].grad())), 0x1p-5, "a gradient");
      }
    });
  }
}

}  // namespace
}  // namespace weft::parallel
