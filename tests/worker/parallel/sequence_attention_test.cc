// Attention spread over the sequence axis against attention over the whole row: outputs and
// gradients in float64 for rings, Ulysses and grids of both, and what a rank may use of memory and
// may send.
#include "worker/parallel/sequence_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "tests/testing/rank_runner.h"
#include "tests/worker/parallel/shards.h"
#include "worker/admission/traffic.h"
#include "worker/parallel/head_parts.h"
#include "worker/parallel/sequence_balance.h"
#include "worker/parallel/sequence_choice.h"

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
  int64_t reach = -1;  // of a table by distance; -1: none
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
    {"DistanceBias", false, false, false, false, 0, kHeads, -1, -1, false, 5},
    {"DistanceBiasOfGivenPositions", true, true, false, true, 0.1, 2, -1, -1, true, 3},
    {"DistanceBiasMultiQuery", true, false, true, false, 0, 1, 9, -1, false, 40},
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

Parameters whole_parameters(Context& cx, const Case& c, int64_t tokens, int64_t keys) {
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
    p.visibility.key_valid = by_token<uint8_t>(cx, keys, [&](int64_t row, int64_t token) {
      return row == 0 ? token + 2 < keys || token == 0 : token > 1;
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
  p.dropout = {c.dropout, {5, 6}, kRows, kHeads, tokens, keys};
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

void compare(Rank& rank, const Case& c, const SequenceLayout& layout,
             const SequenceLayout& key_layout) {
  const int64_t tokens = layout.tokens(), keys = key_layout.tokens();
  SCOPED_TRACE(std::string(c.name) + " tokens " + std::to_string(tokens) + " keys " +
               std::to_string(keys));
  const int index = rank.mesh.index(Axis::kSequence);
  Context cx = rank.context();
  Tape tape;
  cx.tape = &tape;
  const Tensor q = leaf(drawn(cx, {kRows, kHeads, tokens, kFeatures}, 1));
  const Tensor k = leaf(drawn(cx, {kRows, c.key_heads, keys, kFeatures}, 2));
  const Tensor v = leaf(drawn(cx, {kRows, c.key_heads, keys, kValues}, 3));
  const Tensor weight = drawn(cx, {kRows, kHeads, tokens, kValues}, 4);
  Parameters parameters = whole_parameters(cx, c, tokens, keys);
  Tensor table, own_table;
  if (c.reach >= 0) {
    parameters.distance_bias = table = leaf(drawn(cx, {kHeads, 2 * c.reach + 1}, 5));
    own_table = leaf(clone(cx.pool, table.detach()));
  }
  const Tensor whole = attention::scaled_dot_product(cx, q, k, v, parameters);
  tape.backward(cx, whole, weight);

  const auto mine = [&](const Tensor& x) { return own_tokens(cx, layout, index, x, 2); };
  const auto my_keys = [&](const Tensor& x) { return own_tokens(cx, key_layout, index, x, 2); };
  const Tensor own_q = leaf(mine(q)), own_k = leaf(my_keys(k)), own_v = leaf(my_keys(v));
  parameters.distance_bias = own_table;
  const Tensor part =
      sequence_attention(cx, rank.mesh, layout, key_layout, own_q, own_k, own_v, parameters);
  expect_near(part, mine(whole), 1e-12, "output");
  tape.backward(cx, part, mine(weight));
  expect_near(own_q.grad(), mine(q.grad()), 1e-12, "q");
  expect_near(own_k.grad(), my_keys(k.grad()), 1e-12, "k");
  expect_near(own_v.grad(), my_keys(v.grad()), 1e-12, "v");
  if (c.reach < 0) return;
  Tensor sum = own_table.grad();
  rank.mesh.axis(Axis::kSequence).all_reduce(sum, ReduceOp::kSum);
  expect_near(sum, table.grad(), 1e-12, "the table by distance");
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
      for (const SequenceLayout& layout : {SequenceLayout::contiguous(tokens, ranks),
                                           dealt(tokens, ranks / ulysses).divided(ulysses)}) {
        compare(rank, c, layout, layout);
      }
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

// Keys of other rows, more or fewer than the queries, of which some ranks may have none.
TEST(SequenceAttentionToASource, IsAttentionOverTheWhole) {
  constexpr Case kToSource[] = {
      {"Plain"}, {"Padding", false, true}, {"Grouped", false, true, false, false, 0.2, 2}};
  for (const auto& grid : grids()) {
    const auto [ranks, ulysses] = grid;
    if (ranks > 4) continue;
    testing::run_mesh({.sequence = ranks, .ulysses = ulysses}, [&](Rank& rank) {
      const int exchange = rank.mesh.size(Axis::kUlysses), rings = rank.mesh.size(Axis::kRing);
      for (const Case& c : kToSource) {
        for (const auto& [tokens, keys] : {std::pair{19, 8}, {5, 23}, {2, 7}, {7, 2}}) {
          compare(rank, c, dealt(tokens, rings).divided(exchange),
                  SequenceLayout::contiguous(keys, rings).divided(exchange));
        }
      }
    });
  }
}

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

TEST(SequenceAttentionBlocks, ABiasByDistanceOfPartsOfRowsIsRefused) {
  testing::run_mesh({}, [](Rank& rank) {
    Context cx = rank.context();
    cx.block_count = 2;
    const Tensor x = drawn(cx, {1, 2, 4, 3}, 1);
    Parameters parameters;
    parameters.distance_bias = drawn(cx, {2, 5}, 2);
    EXPECT_DEATH(sequence_attention(cx, rank.mesh, SequenceLayout::contiguous(4, 1), x, x, x,
                                    parameters, {.blocks = 2, .heads = 2, .key_heads = 1}),
                 "a bias by distance is cut into blocks of whole rows");
  });
}

// In units of one tensor [B, N, T, D] of a rank. Forwards: of the visiting keys and values the
// third that is computed on and two on their way (2), the rank's own on their way out (4/3), the
// output so far and the piece's (2), and less than a half for the rest. A second visiting block
// would make it 7 or more. Backwards, what is saved was there before: keys and values (10/3), the
// gradients of q, k and v so far (3) and of the piece (5/3), those of k and v on their ways home
// (4/3), and less than one for the rest.
TEST(RingMemory, NeverMoreThanTwoBlocks) {
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
      EXPECT_LT(forwards, 5.8) << ranks;
      EXPECT_LT(backwards, 10.3) << ranks;
      EXPECT_GT(forwards, 3);  // otherwise the bound is no bound
      EXPECT_GT(backwards, 7);
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

// Payload bytes of one forward and one backward pass, as docs/PERFORMANCE.md derives them.
struct Bytes {
  int64_t forward = 0, backward = 0;
  bool operator==(const Bytes&) const = default;
};

constexpr int64_t kWireRows = 2, kWireHeads = 8, kWireFeatures = 4, kWireValues = 6;

Bytes bytes_sent(Rank& rank, const SequenceLayout& layout, int64_t key_heads, DType dtype,
                 const Parameters& parameters) {
  Context cx = rank.context();
  Tape tape;
  cx.tape = &tape;
  const int64_t tokens = layout.length(rank.mesh.index(Axis::kSequence));
  const auto input = [&](int64_t heads, int64_t features) {
    return leaf(Tensor::full(cx.allocator, {kWireRows, heads, tokens, features}, 0.5, dtype));
  };
  const auto sent = [&] {
    return rank.mesh.axis(Axis::kRing).bytes_sent() + rank.mesh.axis(Axis::kUlysses).bytes_sent();
  };
  const int64_t before = sent();
  const Tensor y = sequence_attention(cx, rank.mesh, layout, input(kWireHeads, kWireFeatures),
                                      input(key_heads, kWireFeatures),
                                      input(key_heads, kWireValues), parameters);
  const int64_t between = sent();
  tape.backward(cx, y);
  return {between - before, sent() - between};
}

Parameters causal() {
  Parameters parameters;
  parameters.visibility.causal = true;
  return parameters;
}

constexpr int64_t kTwoWidths = kWireFeatures + kWireValues;

// The formulas' (worker/admission/traffic.h).
Bytes formula(const AttentionTraffic& traffic) {
  return {traffic.forward.bytes, traffic.backward.bytes};
}

AttentionSizes wire_sizes(int64_t tokens, int64_t own_tokens, int64_t key_heads, DType dtype,
                          bool is_causal) {
  return {kWireRows, tokens,        own_tokens,  kWireHeads,
          key_heads, kWireFeatures, kWireValues, static_cast<int64_t>(size_of(dtype)),
          is_causal};
}

TEST(RingBytes, AreTheFormula) {
  for (const int p : {2, 3, 4, 5}) {
    testing::run_mesh({.sequence = p}, [&](Rank& rank) {
      const int r = rank.mesh.index(Axis::kSequence);
      for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64}) {
        const auto e = static_cast<int64_t>(size_of(dtype)), g = std::max<int64_t>(e, 4);
        for (const int64_t key_heads : {8, 2}) {
          const SequenceLayout parts = SequenceLayout::contiguous(32 + p, p);
          const AttentionSizes plain =
              wire_sizes(parts.tokens(), parts.length(r), key_heads, dtype, false);
          EXPECT_EQ(bytes_sent(rank, parts, key_heads, dtype, {}),
                    formula(ring_traffic(plain, p, r)));
          const int64_t c = 6;  // tokens of a chunk
          const SequenceLayout zigzag =
              balanced_layout(keys_seen({.causal = true}, 2 * p * c, {}, {}), p);
          const AttentionSizes half = wire_sizes(2 * p * c, 2 * c, key_heads, dtype, true);
          EXPECT_EQ(bytes_sent(rank, zigzag, key_heads, dtype, causal()),
                    formula(ring_traffic(half, p, r)));
          // A window of 5 reaches back into the last 5 tokens of the part before.
          Parameters window = causal();
          window.visibility.window_left = 5;
          const int64_t unit = kWireRows * key_heads * kTwoWidths;
          const int64_t there = r + 1 < p ? unit * e * 5 : 0, back = r > 0 ? unit * g * 5 : 0;
          EXPECT_EQ(
              bytes_sent(rank, SequenceLayout::contiguous(8 * p, p), key_heads, dtype, window),
              (Bytes{there, there + back}));
        }
      }
    });
  }
}

// No document crosses from rank to rank: nothing is sent.
TEST(RingBytes, OfDocumentsThatStayOnTheirRanksThereAreNone) {
  testing::run_mesh({.sequence = 4}, [](Rank& rank) {
    Context cx = rank.context();
    Parameters parameters = causal();
    parameters.visibility.query_document = parameters.visibility.key_document = by_token<int64_t>(
        cx, 32, [](int64_t, int64_t token) { return token / 8 * 2 + token % 8 / 5; });
    EXPECT_EQ(bytes_sent(rank, SequenceLayout::contiguous(32, 4), 8, DType::kF32, parameters),
              Bytes());
  });
}

TEST(UlyssesBytes, AreTheFormula) {
  for (const int u : {2, 4, 8}) {
    testing::run_mesh({.sequence = u, .ulysses = u}, [&](Rank& rank) {
      const int r = rank.mesh.index(Axis::kSequence);
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        for (const int64_t key_heads : {8, 4, 2, 1}) {
          const SequenceLayout layout = SequenceLayout::contiguous(40 + u / 2, u);
          const AttentionSizes sizes =
              wire_sizes(layout.tokens(), layout.length(r), key_heads, dtype, true);
          EXPECT_EQ(bytes_sent(rank, layout, key_heads, dtype, causal()),
                    formula(exchange_traffic(sizes, all_head_parts(kWireHeads, key_heads, u), r)));
        }
      }
    });
  }
}

// A grid sends what its exchanges and its rings, of fewer heads and more tokens, send each.
TEST(GridBytes, AreTheSumOfBoth) {
  testing::run_mesh({.sequence = 6, .ulysses = 2}, [](Rank& rank) {
    constexpr int64_t kTokens = 12, kKeyHeads = 4, own = 2;
    const int r = rank.mesh.index(Axis::kSequence);
    const Bytes sent =
        bytes_sent(rank, SequenceLayout::contiguous(kTokens, 6), kKeyHeads, DType::kF32, {});
    const AttentionSizes sizes = wire_sizes(kTokens, own, kKeyHeads, DType::kF32, false);
    EXPECT_EQ(sent, formula(sequence_traffic(sizes, 6, 2, r)));
    const double estimate = elements_sent({kWireHeads, kKeyHeads}, 6, 2, false, false);
    EXPECT_EQ(static_cast<double>(sent.forward + sent.backward) / (kWireRows * 4) * 2,
              estimate * static_cast<double>(own) * kTwoWidths);
  });
}

// The operations that each rank's kernels really did, of a causal attention with and without
// documents and windows.
TEST(RingWork, IsEvenOverTheRanks) {
  constexpr int64_t kTokens = 8192;
  for (const bool packed : {false, true}) {
    for (const int64_t window : {-1, 700, 3000}) {
      const int ranks = 4;
      std::vector<int64_t> documents(kTokens);
      for (int64_t i = 0, id = 0, left = 0; i < kTokens; ++i) {
        if (packed && left-- == 0) left = 60 + (++id * 7919) % 2400;
        documents[static_cast<size_t>(i)] = id;
      }
      const AttentionPattern pattern{true, window};
      const SequenceLayout layout =
          balanced_layout(keys_seen(pattern, kTokens, documents, {}), ranks);
      std::vector<int64_t> flops(ranks);
      testing::run_mesh({.sequence = ranks}, [&](Rank& rank) {
        Context cx = rank.context();
        Tape tape;
        cx.tape = &tape;
        const int index = rank.mesh.index(Axis::kSequence);
        const auto input = [&] {
          return leaf(Tensor::full(cx.allocator, {1, 1, layout.length(index), 16}, 0.1));
        };
        Parameters parameters = causal();
        parameters.visibility.window_left = window;
        parameters.visibility.query_document = parameters.visibility.key_document =
            Tensor::from<int64_t>(cx.allocator, {1, kTokens}, documents);
        tape.backward(
            cx, sequence_attention(cx, rank.mesh, layout, input(), input(), input(), parameters));
        flops[static_cast<size_t>(index)] = rank.attention_flops;
      });
      const double mean =
          static_cast<double>(std::accumulate(flops.begin(), flops.end(), int64_t{0})) / ranks;
      const double most = static_cast<double>(*std::max_element(flops.begin(), flops.end()));
      EXPECT_LE(most / mean, 1.05) << "packed " << packed << " window " << window;
      // Contiguous parts are what it takes to go beyond it.
      if (!packed && window < 0) {
        EXPECT_GT(imbalance(SequenceLayout::contiguous(kTokens, ranks),
                            keys_seen(pattern, kTokens, {}, {})),
                  1.7);
      }
    }
  }
}

}  // namespace
}  // namespace weft::parallel
