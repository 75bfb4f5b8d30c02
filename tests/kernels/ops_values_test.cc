// Values that finite differences cannot judge: definitions, edges and keyed randomness.
#include <limits>
#include <numbers>

#include "kernels/ops/norms.h"
#include "kernels/ops/reductions.h"
#include "kernels/tensor/strided.h"
#include "proto/base/status.h"
#include "tests/testing/gradient_check.h"

namespace weft::ops {
namespace {

using testing::Bench;
using testing::ids;
using testing::random_tensor;

class OpsValues : public ::testing::Test {
 protected:
  Bench bench_;
  Context& cx_ = bench_.context;
  Tensor floats(Shape shape, const std::vector<float>& values) {
    return Tensor::from<float>(cx_.allocator, shape, values);
  }
};

TEST_F(OpsValues, ActivationsFollowTheirFormulasOverTheWholeRange) {
  std::vector<float> points;
  for (int i = -20000; i <= 20000; ++i) points.push_back(static_cast<float>(i) * 0.005F);
  const Tensor x = floats({static_cast<int64_t>(points.size())}, points);
  const auto check = [&](Activation kind, auto formula) {
    const std::vector<float> y = activate(cx_, x, kind).to_vector<float>();
    for (size_t i = 0; i < points.size(); ++i) {
      const double expected = formula(static_cast<double>(points[i]));
      ASSERT_NEAR(y[i], expected, 1e-6 * (1e-2 + std::abs(expected))) << points[i];
    }
  };
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  check(Activation::kSigmoid, sigmoid);
  check(Activation::kSilu, [&](double v) { return v * sigmoid(v); });
  check(Activation::kTanh, [](double v) { return std::tanh(v); });
  check(Activation::kRelu, [](double v) { return std::max(v, 0.0); });
  check(Activation::kGeluErf, [](double v) { return v / 2 * (1 + std::erf(v / std::sqrt(2))); });
  check(Activation::kGeluTanh, [](double v) {
    return v / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (v + 0.044715 * v * v * v)));
  });
}

TEST_F(OpsValues, TheTwoGelusDiffer) {
  const Tensor x = floats({1}, {2.0F});
  EXPECT_GT(std::abs(activate(cx_, x, Activation::kGeluTanh).to_vector<float>()[0] -
                     activate(cx_, x, Activation::kGeluErf).to_vector<float>()[0]),
            5e-5);
}

TEST_F(OpsValues, SoftmaxOfExtremes) {
  const float inf = std::numeric_limits<float>::infinity();
  const Tensor x = floats({3, 3}, {1000, 999, -1000, -inf, 0, 0, -inf, -inf, -inf});
  const std::vector<float> y = softmax(cx_, x, -1).to_vector<float>();
  EXPECT_NEAR(y[0], 0.7310586, 1e-6);
  EXPECT_EQ(y[2], 0);
  EXPECT_EQ(y[3], 0);
  EXPECT_EQ(y[4], 0.5F);
  for (size_t i = 6; i < 9; ++i) EXPECT_EQ(y[i], 0);
}

// 32 MiB, which are written past the caches, and a few rows of them, which are not.
TEST_F(OpsValues, SoftmaxOfALargeTensorIsThatOfItsRows) {
  const Tensor all = random_tensor<float>(cx_, {8192, 1024}, 1);
  const Tensor seeds = random_tensor<float>(cx_, {8192, 1024}, 2);
  const auto last_rows = [&](const Tensor& of) {
    return as_contiguous(cx_.pool, slice(cx_, of, 0, of.dim(0) - 3, 3).detach());
  };
  const auto results = [&](Tensor x, const Tensor& seed) {
    Tape tape;
    Context recording = cx_;
    recording.tape = &tape;
    x.set_requires_grad(true);
    const Tensor y = softmax(recording, x, -1);
    tape.backward(recording, y, seed);
    std::vector<float> values = last_rows(y).to_vector<float>();
    const std::vector<float> gradient = last_rows(x.grad()).to_vector<float>();
    values.insert(values.end(), gradient.begin(), gradient.end());
    return values;
  };
  EXPECT_EQ(results(all, seeds), results(last_rows(all), last_rows(seeds)));
}

TEST_F(OpsValues, CrossEntropyOfExtremesAndOfNothing) {
  const Tensor x = floats({2, 2}, {1e4F, 0, 0, -1e4F});
  const auto loss = [&](const std::vector<int64_t>& labels, int64_t ignored) {
    return cross_entropy_sum(cx_, x, ids(cx_, {2}, labels), {.ignore_index = ignored})
        .to_vector<float>()[0];
  };
  EXPECT_FLOAT_EQ(loss({1, 0}, -100), 1e4F);
  EXPECT_EQ(loss({-100, -100}, -100), 0);
  EXPECT_EQ(loss({7, 0}, 7), 0);
}

TEST_F(OpsValues, ALabelOutOfRangeIsAStatus) {
  const Tensor x = floats({1, 3}, {0, 0, 0});
  for (const int64_t label : {int64_t{-1}, int64_t{3}, int64_t{1} << 40}) {
    try {
      cross_entropy_sum(cx_, x, ids(cx_, {1}, {label}));
      FAIL() << label;
    } catch (const StatusError& error) {
      EXPECT_EQ(error.status().value(), std::to_string(label));
    }
  }
}

TEST_F(OpsValues, EmbeddingShardsAddUpToTheWhole) {
  const Tensor table = random_tensor<float>(cx_, {7, 4}, 1);
  const Tensor wanted = ids(cx_, {5}, {6, 0, 3, 3, 2});
  const Tensor low = slice(cx_, table, 0, 0, 4), high = slice(cx_, table, 0, 4, 3);
  const Tensor sum = add(cx_, embedding(cx_, wanted, low, 0), embedding(cx_, wanted, high, 4));
  EXPECT_EQ(sum.to_vector<float>(), embedding(cx_, wanted, table).to_vector<float>());
}

TEST_F(OpsValues, ThePaddingRowGetsNoGradient) {
  Tape tape;
  Context cx = cx_;
  cx.tape = &tape;
  Tensor table = random_tensor<float>(cx_, {3, 2}, 1);
  table.set_requires_grad(true);
  tape.backward(cx, embedding(cx, ids(cx, {4}, {0, 2, 2, 0}), table, 0, 2));
  EXPECT_EQ(table.grad().to_vector<float>(), (std::vector<float>{2, 2, 0, 0, 0, 0}));
}

TEST_F(OpsValues, DropoutOfAShardIsThatOfTheWhole) {
  const Tensor ones = Tensor::full(cx_.allocator, {6, 10}, 1);
  const RandomKey key{3, 4};
  const auto part = [&](const Tensor& x) { return slice(cx_, slice(cx_, x, 0, 2, 3), 1, 3, 5); };
  const Tensor whole = dropout(cx_, ones, 0.5, key, {Shape{6, 10}, {0, 0}});
  EXPECT_EQ(dropout(cx_, part(ones), 0.5, key, {Shape{6, 10}, {2, 3}}).to_vector<float>(),
            part(whole).to_vector<float>());
  EXPECT_NE(dropout(cx_, ones, 0.5, {3, 5}, {Shape{6, 10}, {0, 0}}).to_vector<float>(),
            whole.to_vector<float>());
}

TEST_F(OpsValues, DropoutMaskAgreesWithKeptAt) {
  const DropRule rule(0.3);
  const Tensor ones = Tensor::full(cx_.allocator, {97}, 1);
  const std::vector<float> y = dropout(cx_, ones, 0.3, {3, 4}, {Shape{97}, {0}}).to_vector<float>();
  for (uint64_t i = 0; i < 97; ++i) {
    EXPECT_EQ(y[i], kept_at({3, 4}, i, rule.dropped) ? static_cast<float>(rule.factor) : 0.0F);
  }
}

TEST_F(OpsValues, ARowDoesNotDependOnTheOthersOrItsAddress) {
  const Tensor x = random_tensor<float>(cx_, {37, 53}, 1);
  const Tensor gamma = random_tensor<float>(cx_, {53}, 2),
               beta = random_tensor<float>(cx_, {53}, 3);
  for (const int64_t row : {0, 5, 36}) {
    const Tensor one = weft::clone(cx_.pool, slice(cx_, x, 0, row, 1));
    const auto same = [&](const std::function<Tensor(const Tensor&)>& f) {
      EXPECT_EQ(f(one).to_vector<float>(), slice(cx_, f(x), 0, row, 1).to_vector<float>());
    };
    same([&](const Tensor& v) { return softmax(cx_, v, -1); });
    same([&](const Tensor& v) { return layer_norm(cx_, v, gamma, beta, 1e-5); });
    same([&](const Tensor& v) { return activate(cx_, v, Activation::kGeluTanh); });
    same([&](const Tensor& v) { return sum(cx_, v, 1, true); });
  }
}

// Halves of the inner dim, as two ranks hold them, merge to the bits of the whole.
TEST_F(OpsValues, BlocksOfAShardMergeToTheWhole) {
  const Tensor a = random_tensor<float>(cx_, {33, 64}, 1);
  const Tensor b = random_tensor<float>(cx_, {64, 17}, 2);
  Context whole = cx_, half = cx_;
  whole.block_count = 8;
  half.block_count = 4;
  const auto columns = [&](int64_t start) {
    return weft::clone(cx_.pool, slice(cx_, a, 1, start, 32));
  };
  const auto rows = [&](int64_t start) { return slice(cx_, b, 0, start, 32); };
  EXPECT_EQ(add(cx_, matmul(half, columns(0), rows(0)), matmul(half, columns(32), rows(32)))
                .to_vector<float>(),
            matmul(whole, a, b).to_vector<float>());
  EXPECT_EQ(add(cx_, sum(half, rows(0), 0), sum(half, rows(32), 0)).to_vector<float>(),
            sum(whole, b, 0).to_vector<float>());
}

// Gradients of parameters over tokens: those of two halves, in half the blocks, merge to the
// whole's.
TEST_F(OpsValues, BlocksOfTokensMergeToTheWhole) {
  const int64_t tokens = 400, width = 24;
  const Tensor x = random_tensor<float>(cx_, {tokens, width}, 1);
  const Tensor dy = random_tensor<float>(cx_, {tokens, width}, 2);
  std::vector<int64_t> rows_of_table;
  for (int64_t i = 0; i < tokens; ++i) rows_of_table.push_back(i * i % 11 % 7);
  const Tensor numbers = ids(cx_, {tokens}, rows_of_table);
  const auto gradients = [&](int64_t start, int64_t count, int blocks) {
    Context cx = cx_;
    cx.block_count = blocks;
    Tape tape;
    cx.tape = &tape;
    std::vector<Tensor> leaves{
        random_tensor<float>(cx_, {width}, 4), random_tensor<float>(cx_, {width}, 5),
        random_tensor<float>(cx_, {7, width}, 6), random_tensor<float>(cx_, {width}, 7)};
    for (Tensor& leaf : leaves) leaf.set_requires_grad(true);
    const auto rows = [&](const Tensor& all) {
      return weft::clone(cx_.pool, slice(cx_, all, 0, start, count));
    };
    const Tensor normed = layer_norm(cx, rows(x), leaves[0], leaves[1], 1e-5);
    const Tensor by_size = rms_norm(cx, normed, leaves[3], 1e-5);
    tape.backward(cx, add(cx, by_size, embedding(cx, rows(numbers), leaves[2])), rows(dy));
    std::vector<std::vector<float>> all;
    for (const Tensor& leaf : leaves) all.push_back(leaf.grad().to_vector<float>());
    return all;
  };
  for (const int blocks : {2, 8, 16}) {
    const auto whole = gradients(0, tokens, blocks);
    auto merged = gradients(0, tokens / 2, blocks / 2);
    const auto other = gradients(tokens / 2, tokens / 2, blocks / 2);
    for (size_t i = 0; i < merged.size(); ++i) {
      for (size_t j = 0; j < merged[i].size(); ++j) merged[i][j] += other[i][j];
      EXPECT_EQ(merged[i], whole[i]) << blocks << " blocks, leaf " << i;
    }
    EXPECT_NE(whole, gradients(0, tokens, 1));
  }
}

TEST_F(OpsValues, LongSumsAreAccurate) {
  const int64_t count = 1 << 20;
  const double tenth = static_cast<double>(0.1F);
  const Tensor x = Tensor::full(cx_.allocator, {count}, 0.1);
  EXPECT_NEAR(sum_all(cx_, x).to_vector<float>()[0], tenth * count, 0.5);
  const Tensor columns = Tensor::full(cx_.allocator, {count / 4, 4}, 0.1);
  EXPECT_NEAR(sum(cx_, columns, 0).to_vector<float>()[0], tenth * count / 4, 0.1);
  const std::vector<float> sums = cumulative_sum(cx_, x, 0).to_vector<float>();
  EXPECT_NEAR(sums.back(), tenth * count, 0.01);
  const std::vector<float> of_columns = cumulative_sum(cx_, columns, 0, true).to_vector<float>();
  EXPECT_NEAR(of_columns[1], tenth * count / 4, 0.01);
}

// What an attention layer does to its projections copies nothing.
TEST_F(OpsValues, ReshapeOfAPartIsAViewWhereTheStridesAllowIt) {
  const Tensor x = random_tensor<float>(cx_, {2, 3, 24}, 1);
  const std::vector<int64_t> thirds = {8, 8, 8};
  const std::vector<Tensor> parts = split(cx_, x, -1, thirds);
  const Tensor heads = reshape(cx_, parts[1], Shape{2, 3, 2, 4});
  EXPECT_EQ(heads.raw(), parts[1].raw());
  EXPECT_EQ(heads.to_vector<float>(), parts[1].to_vector<float>());
  const Tensor flat = reshape(cx_, parts[1], Shape{1, 6, 1, 8, 1});
  EXPECT_EQ(flat.raw(), parts[1].raw());
  EXPECT_EQ(flat.to_vector<float>(), parts[1].to_vector<float>());
  const Tensor joined = reshape(cx_, parts[1], Shape{48});  // has to copy
  EXPECT_NE(joined.raw(), parts[1].raw());
  EXPECT_EQ(joined.to_vector<float>(), parts[1].to_vector<float>());
}

}  // namespace
}  // namespace weft::ops
