// A small model written once with plain ops and once with the parallel ones: same loss, and each
// shard of a gradient is that part of the whole one.
#include "worker/parallel/tensor_parallel.h"

#include <gtest/gtest.h>

#include <array>
#include <tuple>

#include "kernels/cpu/convert.h"
#include "kernels/ops/elementwise.h"
#include "tests/testing/rank_runner.h"
#include "tests/worker/parallel/shards.h"

namespace weft::parallel {
namespace {

using ops::WeightLayout;
using testing::cut;
using testing::drawn;
using testing::expect_near;
using testing::leaf;

struct Sizes {
  int64_t batch = 2, tokens = 5, hidden = 6, inner = 10, vocabulary = 11;
};

// embedding -> norm -> (up, gelu, down with bias) + residual -> tied head -> cross-entropy.
struct Weights {
  Tensor table, gamma, beta, up, up_bias, down, down_bias;

  std::vector<std::pair<std::string, Tensor>> named() const {
    return {{"table", table},     {"gamma", gamma}, {"beta", beta},          {"up", up},
            {"up_bias", up_bias}, {"down", down},   {"down_bias", down_bias}};
  }
};

// The dim of a [out, in] weight that holds `outputs`.
int output_dim(WeightLayout layout) { return layout == WeightLayout::kOutIn ? 0 : 1; }

Shape weight_shape(WeightLayout layout, int64_t in, int64_t out) {
  return layout == WeightLayout::kOutIn ? Shape{out, in} : Shape{in, out};
}

Weights whole_weights(Context& cx, const Sizes& n, WeightLayout layout) {
  return {leaf(drawn(cx, {n.vocabulary, n.hidden}, 1)),
          leaf(drawn(cx, {n.hidden}, 2)),
          leaf(drawn(cx, {n.hidden}, 3)),
          leaf(drawn(cx, weight_shape(layout, n.hidden, n.inner), 4)),
          leaf(drawn(cx, {n.inner}, 5)),
          leaf(drawn(cx, weight_shape(layout, n.inner, n.hidden), 6)),
          leaf(drawn(cx, {n.hidden}, 7))};
}

// What this rank holds of each; with a gradient, what it should hold of that.
Weights shards(Context& cx, const Communicator& tensor, const Weights& w, WeightLayout layout) {
  const int out = output_dim(layout);
  return {cut(cx, tensor, w.table, 0),   clone(cx.pool, w.gamma),
          clone(cx.pool, w.beta),        cut(cx, tensor, w.up, out),
          cut(cx, tensor, w.up_bias, 0), cut(cx, tensor, w.down, 1 - out),
          clone(cx.pool, w.down_bias)};
}

Weights grads(const Weights& w) {
  return {w.table.grad(),   w.gamma.grad(), w.beta.grad(),     w.up.grad(),
          w.up_bias.grad(), w.down.grad(),  w.down_bias.grad()};
}

Tensor plain_loss(Context& cx, const Weights& w, const Tensor& ids, const Tensor& labels,
                  WeightLayout layout) {
  const Tensor x = ops::embedding(cx, ids, w.table, 0, 3);
  const Tensor normed = ops::layer_norm(cx, x, w.gamma, w.beta, 1e-5);
  const Tensor up = ops::activate(cx, ops::linear(cx, normed, w.up, w.up_bias, layout),
                                  ops::Activation::kGeluTanh);
  const Tensor y = ops::add(cx, x, ops::linear(cx, up, w.down, w.down_bias, layout));
  const Tensor logits = ops::linear(cx, y, w.table, Tensor(), WeightLayout::kOutIn);
  return ops::cross_entropy_sum(cx, logits, labels);
}

Tensor parallel_loss(Context& cx, const TensorAxis& axis, const Sizes& n, const Weights& w,
                     const Tensor& ids, const Tensor& labels, WeightLayout layout) {
  const Tensor x = vocabulary_embedding(cx, axis, ids, w.table, n.vocabulary, 3);
  const Tensor normed =
      ops::layer_norm(cx, x, replicated(cx, axis, w.gamma), replicated(cx, axis, w.beta), 1e-5);
  const Tensor up =
      column_linear(cx, axis, normed, w.up, w.up_bias, layout, ops::Activation::kGeluTanh);
  const Tensor y = ops::add(cx, x, row_linear(cx, axis, up, w.down, w.down_bias, layout));
  const Tensor logits = column_linear(cx, axis, y, w.table, Tensor(), WeightLayout::kOutIn);
  return vocabulary_cross_entropy(cx, axis.comm, logits, labels, n.vocabulary);
}

Tensor integers(Context& cx, const Sizes& n, int64_t factor, bool some_ignored) {
  Tensor ids = Tensor::empty(cx.allocator, {n.batch, n.tokens}, DType::kI64);
  for (int64_t i = 0; i < ids.elements(); ++i) {
    ids.data<int64_t>()[i] = some_ignored && i % 4 == 2 ? -100 : i * factor % n.vocabulary;
  }
  return ids;
}

enum class Split { kNothing, kTokens, kTokensOverlapped };
using Param = std::tuple<int, Split, WeightLayout>;
class TensorParallel : public ::testing::TestWithParam<Param> {};

void compare(Rank& rank, const Sizes& n, Split split, WeightLayout layout) {
  Context cx = rank.context();
  Tape tape;
  cx.tape = &tape;
  const Tensor ids = integers(cx, n, 7, false), labels = integers(cx, n, 5, true);
  const Weights whole = whole_weights(cx, n, layout);
  const Tensor expected = plain_loss(cx, whole, ids, labels, layout);
  tape.backward(cx, expected);

  TensorAxis axis{rank.mesh.axis(Axis::kTensor), split != Split::kNothing, n.tokens};
  if (split == Split::kTokensOverlapped) axis.overlapped_tokens_min = 0;
  Weights mine = shards(cx, axis.comm, whole, layout);
  for (auto& [name, weight] : mine.named()) leaf(weight);
  const Tensor loss = parallel_loss(cx, axis, n, mine, ids, labels, layout);
  expect_near(loss, expected, 1e-10, "loss");
  tape.backward(cx, loss);
  const auto actual = grads(mine).named();
  const auto wanted = shards(cx, axis.comm, grads(whole), layout).named();
  for (size_t i = 0; i < actual.size(); ++i) {
    expect_near(actual[i].second, wanted[i].second, 1e-10, actual[i].first);
  }
}

TEST_P(TensorParallel, LossAndGradientsAreThoseOfOneRank) {
  const auto [tensor, split, layout] = GetParam();
  testing::run_mesh({.tensor = tensor}, [&](Rank& rank) {
    compare(rank, Sizes{}, std::get<1>(GetParam()), std::get<2>(GetParam()));
    // Fewer tokens, inner features and vocabulary than ranks: some have nothing.
    compare(rank, Sizes{1, 2, 5, 3, 3}, std::get<1>(GetParam()), std::get<2>(GetParam()));
  });
}

INSTANTIATE_TEST_SUITE_P(
    Meshes, TensorParallel,
    ::testing::Combine(::testing::Range(1, 5),
                       ::testing::Values(Split::kNothing, Split::kTokens, Split::kTokensOverlapped),
                       ::testing::Values(WeightLayout::kOutIn, WeightLayout::kInOut)));

// The same numbers and bytes, and the same bits every time.
TEST(OverlappedLinear, HasTheValuesAndTheBytesOfTheProductsItCuts) {
  for (const int ranks : {2, 3}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      testing::run_mesh({.tensor = ranks}, [&](Rank& rank) {
        Context cx = rank.context();
        Communicator& comm = rank.mesh.axis(Axis::kTensor);
        const Sizes n{2, 7, 8, 12, 0};
        const auto step = [&](int64_t tokens_min) {
          Tape tape;
          cx.tape = &tape;
          TensorAxis axis{comm, true, n.tokens};
          axis.overlapped_tokens_min = tokens_min;
          const auto made = [&](Shape shape, int salt) {
            return leaf(ops::cast(cx, drawn(cx, shape, salt), dtype));
          };
          const Tensor x = made({n.batch, axis.token_part().length, n.hidden}, 1 + comm.rank());
          const Tensor up = made({n.hidden, n.inner / ranks}, 11 + comm.rank());
          const Tensor bias = made({n.inner / ranks}, 21 + comm.rank());
          const Tensor down = made({n.inner / ranks, n.hidden}, 31 + comm.rank());
          const Tensor gate = made({n.hidden, n.inner / ranks}, 51 + comm.rank());
          const Tensor gate_bias = made({n.inner / ranks}, 71 + comm.rank());
          const Tensor up_bias = made({n.inner / ranks}, 81 + comm.rank());
          const Tensor gated_down = made({n.inner / ranks, n.hidden}, 61 + comm.rank());
          const int64_t before = comm.bytes_sent();
          const Tensor inner = column_linear(cx, axis, x, up, bias, WeightLayout::kInOut,
                                             ops::Activation::kGeluTanh);
          const Tensor plain = row_linear(cx, axis, inner, down, Tensor(), WeightLayout::kInOut, x);
          const auto both = column_linears(cx, axis, x, std::array{gate, up},
                                           std::array{gate_bias, up_bias}, WeightLayout::kInOut);
          const Tensor gated = row_linear(cx, axis, ops::swiglu(cx, both[0], both[1]), gated_down,
                                          Tensor(), WeightLayout::kInOut);
          const Tensor y = ops::add(cx, plain, gated);
          tape.backward(cx, y, ops::cast(cx, drawn(cx, y.shape(), 41), dtype));
          std::vector<std::vector<float>> all;
          for (const Tensor& each : {y, x.grad(), up.grad(), bias.grad(), down.grad(), gate.grad(),
                                     gate_bias.grad(), up_bias.grad(), gated_down.grad()}) {
            all.push_back(cpu::converted(cx.pool, each.detach(), DType::kF32).to_vector<float>());
          }
          all.push_back({static_cast<float>(comm.bytes_sent() - before)});
          return all;
        };
        const auto cut_up = step(1), whole = step(1000);
        EXPECT_EQ(step(1), cut_up) << ranks << dtype_name(dtype);
        EXPECT_EQ(cut_up.back(), whole.back()) << ranks;
        const float tolerance = dtype == DType::kF32 ? 1e-5F : 2e-2F;
        for (size_t i = 0; i < whole.size(); ++i) {
          ASSERT_EQ(cut_up[i].size(), whole[i].size());
          for (size_t at = 0; at < whole[i].size(); ++at) {
            EXPECT_NEAR(cut_up[i][at], whole[i][at], tolerance * (4 + std::abs(whole[i][at])));
          }
        }
      });
    }
  }
}

// Two weights of one input, of other widths, the second of so few features that some ranks have
// none: values and gradients are those of one rank.
void compare_several(Rank& rank, Split split, WeightLayout layout) {
  Context cx = rank.context();
  Tape tape;
  cx.tape = &tape;
  constexpr int64_t kBatch = 2, kTokens = 5, kHidden = 6, kWide = 10, kNarrow = 2;
  const Tensor x = leaf(drawn(cx, {kBatch, kTokens, kHidden}, 1));
  const std::array whole = {leaf(drawn(cx, weight_shape(layout, kHidden, kWide), 2)),
                            leaf(drawn(cx, weight_shape(layout, kHidden, kNarrow), 3))};
  const std::array biases = {leaf(drawn(cx, {kWide}, 6)), leaf(drawn(cx, {kNarrow}, 7))};
  const std::array seeds = {drawn(cx, {kBatch, kTokens, kWide}, 4),
                            drawn(cx, {kBatch, kTokens, kNarrow}, 5)};
  const auto loss = [&](const std::vector<Tensor>& y, const std::array<Tensor, 2>& factors) {
    return ops::add(cx, ops::sum_all(cx, ops::multiply(cx, y[0], factors[0])),
                    ops::sum_all(cx, ops::multiply(cx, y[1], factors[1])));
  };
  std::vector<Tensor> expected;
  for (size_t i = 0; i < 2; ++i) {
    expected.push_back(ops::linear(cx, x, whole[i], biases[i], layout));
  }
  tape.backward(cx, loss(expected, seeds));

  TensorAxis axis{rank.mesh.axis(Axis::kTensor), split != Split::kNothing, kTokens};
  if (split == Split::kTokensOverlapped) axis.overlapped_tokens_min = 0;
  const int dim = output_dim(layout);
  const std::array mine = {leaf(cut(cx, axis.comm, whole[0], dim)),
                           leaf(cut(cx, axis.comm, whole[1], dim))};
  const std::array added = {leaf(cut(cx, axis.comm, biases[0], 0)),
                            leaf(cut(cx, axis.comm, biases[1], 0))};
  const auto own_tokens = [&](const Tensor& all) {
    return split == Split::kNothing ? clone(cx.pool, all) : cut(cx, axis.comm, all, 1);
  };
  const Tensor own = leaf(own_tokens(x));
  const std::vector<Tensor> y = column_linears(cx, axis, own, mine, added, layout);
  std::array<Tensor, 2> own_seeds;
  for (size_t i = 0; i < 2; ++i) {
    expect_near(y[i], cut(cx, axis.comm, expected[i], 2), 1e-12, "value");
    own_seeds[i] = cut(cx, axis.comm, seeds[i], 2);
  }
  tape.backward(cx, loss(y, own_seeds));
  expect_near(own.grad(), own_tokens(x.grad()), 1e-12, "input");
  for (size_t i = 0; i < 2; ++i) {
    expect_near(mine[i].grad(), cut(cx, axis.comm, whole[i].grad(), dim), 1e-12, "weight");
    expect_near(added[i].grad(), cut(cx, axis.comm, biases[i].grad(), 0), 1e-12, "bias");
  }
  // No gradient of one of them.
  const Tensor first = column_linears(cx, axis, own.detach(), mine, {}, layout)[0];
  const Tensor before = clone(cx.pool, mine[1].grad());
  tape.backward(cx, first, own_seeds[0]);
  expect_near(mine[0].grad(), ops::scale(cx, cut(cx, axis.comm, whole[0].grad(), dim), 2), 1e-12,
              "twice");
  expect_near(mine[1].grad(), before, 0, "as it was");
}

TEST_P(TensorParallel, SeveralWeightsOfOneInputAreThoseOfOneRank) {
  const auto [tensor, split, layout] = GetParam();
  testing::run_mesh({.tensor = tensor}, [&](Rank& rank) {
    compare_several(rank, std::get<1>(GetParam()), std::get<2>(GetParam()));
  });
}

TEST(VocabularyCrossEntropy, LargeLogitsStayFinite) {
  testing::run_mesh({.tensor = 3}, [](Rank& rank) {
    Context cx = rank.context();
    Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    const Tensor logits = ops::scale(cx, drawn(cx, {4, 8}, 1), 1e4);
    const int64_t values[] = {7, -100, 0, 3};
    const Tensor labels = Tensor::from<int64_t>(cx.allocator, {4}, values);
    const Tensor loss = vocabulary_cross_entropy(cx, tensor, cut(cx, tensor, logits, 1), labels, 8);
    expect_near(loss, ops::cross_entropy_sum(cx, logits, labels), 1e-12, "loss");
  });
}

TEST(VocabularyCrossEntropy, LabelOutsideIsAnErrorOnEveryRank) {
  testing::run_mesh({.tensor = 2}, [](Rank& rank) {
    Context cx = rank.context();
    Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    const Tensor logits = drawn(cx, {1, 4}, 1);
    for (int64_t wrong : {int64_t{8}, int64_t{-1}}) {
      const Tensor labels =
          Tensor::full(cx.allocator, {1}, static_cast<double>(wrong), DType::kI64);
      try {
        vocabulary_cross_entropy(cx, tensor, logits, labels, 8);
        ADD_FAILURE() << "no error for label " << wrong;
      } catch (const StatusError& error) {
        EXPECT_EQ(error.status().code(), Code::kInvalidArgument);
        EXPECT_EQ(error.status().value(), std::to_string(wrong));
      }
    }
  });
}

// A head that is not tensor parallel sees all tokens; its gradient comes back to the rank's own.
TEST(TokenLayout, JoinAndSplit) {
  for (bool sequence_parallel : {false, true}) {
    testing::run_mesh({.tensor = 3}, [&](Rank& rank) {
      Context cx = rank.context();
      Tape tape;
      cx.tape = &tape;
      const TensorAxis axis{rank.mesh.axis(Axis::kTensor), sequence_parallel, 4};
      const Tensor x = leaf(drawn(cx, {2, 4, 3}, 1)), weight = drawn(cx, {2, 4, 3}, 2);
      const Tensor part = split_tokens(cx, axis, x);
      EXPECT_EQ(part.dim(1), axis.token_part().length);
      const Tensor back = join_tokens(cx, axis, part);
      expect_near(back, x, 0, "value");
      tape.backward(cx, back, weight);
      expect_near(x.grad(), weight, 0, "gradient");
    });
  }
}

}  // namespace
}  // namespace weft::parallel
