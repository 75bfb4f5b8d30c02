#include "kernels/autograd/tape.h"

#include <map>
#include <unordered_set>

#include "kernels/ops/common.h"
#include "tests/testing/gradient_check.h"

namespace weft {
namespace {

using testing::Bench;
using testing::random_tensor;

class TapeTest : public ::testing::Test {
 protected:
  TapeTest() { cx_.tape = &bench_.tape; }
  Tensor leaf(Shape shape, uint64_t seed) {
    Tensor x = random_tensor(cx_, shape, seed);
    return x.set_requires_grad(true);
  }
  Bench bench_;
  Context cx_ = bench_.context;
};

TEST_F(TapeTest, GradientsOfLeavesAddUpOverBackwardPasses) {
  const Tensor x = leaf({3}, 1), y = leaf({3}, 2);
  for (int round = 1; round <= 3; ++round) {
    bench_.tape.backward(cx_, ops::multiply(cx_, x, y));
    std::vector<double> expected = y.to_vector<double>();
    for (double& value : expected) value *= round;
    testing::expect_close(x.grad(), expected, 1e-15);
  }
}

TEST_F(TapeTest, ATensorUsedManyTimesGetsTheSum) {
  const Tensor x = leaf({3}, 1);
  Tensor y = x;
  for (int i = 0; i < 5; ++i) y = ops::add(cx_, y, y);
  bench_.tape.backward(cx_, y);
  EXPECT_EQ(x.grad().to_vector<double>(), std::vector<double>(3, 32));
}

TEST_F(TapeTest, GradientsOfTwoLeavesDoNotShareStorage) {
  const Tensor x = leaf({3}, 1), y = leaf({3}, 2);
  const Tensor seed = Tensor::full(cx_.allocator, {3}, 1, DType::kF64);
  bench_.tape.backward(cx_, ops::add(cx_, x, y), seed);
  EXPECT_NE(x.grad().raw(), y.grad().raw());
  EXPECT_NE(x.grad().raw(), seed.raw());
  EXPECT_TRUE(x.grad().contiguous());
}

TEST_F(TapeTest, NothingIsRecordedWithoutNeedOrTape) {
  const Tensor plain = random_tensor(cx_, {3}, 4), x = leaf({3}, 1);
  EXPECT_FALSE(ops::add(cx_, plain, plain).requires_grad());
  EXPECT_EQ(bench_.tape.size(), 0U);
  {
    const NoGrad off(cx_);
    EXPECT_FALSE(ops::add(cx_, x, x).requires_grad());
  }
  const Tensor y = ops::add(cx_, x, plain);
  EXPECT_TRUE(y.requires_grad());
  EXPECT_FALSE(y.leaf());
  EXPECT_EQ(bench_.tape.size(), 1U);
  bench_.tape.backward(cx_, y);
  EXPECT_FALSE(plain.grad());
}

TEST_F(TapeTest, HooksFollowTheLastUseOfEachLeaf) {
  const Tensor early = leaf({2}, 1), late = leaf({2}, 2), unused = leaf({2}, 3);
  std::vector<uint64_t> ready;
  std::vector<double> value_at_hook;
  bench_.tape.on_leaf_ready([&](const Tensor& x) {
    ready.push_back(x.id());
    if (x.id() == early.id()) value_at_hook = x.grad().to_vector<double>();
  });
  Tensor y = ops::multiply(cx_, early, early);
  y = ops::multiply(cx_, y, late);
  y = ops::add(cx_, y, early);  // the backward pass meets `early` first here
  bench_.tape.backward(cx_, y);
  EXPECT_EQ(ready, (std::vector<uint64_t>{late.id(), early.id()}));
  EXPECT_EQ(value_at_hook, early.grad().to_vector<double>());
  EXPECT_FALSE(unused.grad());
}

TEST_F(TapeTest, ALinearMapsParametersAreReadyBeforeItsInput) {
  const Tensor x = leaf({4, 3}, 1), weight = leaf({3, 5}, 2), bias = leaf({5}, 3);
  const auto order = [&](const Tensor& last) {
    std::vector<uint64_t> ready;
    bench_.tape.on_leaf_ready([&](const Tensor& each) { ready.push_back(each.id()); });
    bench_.tape.backward(cx_, ops::linear(cx_, last, weight, bias, ops::WeightLayout::kInOut,
                                          ops::Activation::kRelu));
    return ready;
  };
  EXPECT_EQ(order(x), (std::vector<uint64_t>{weight.id(), bias.id(), x.id()}));
  const std::vector<double> once = weight.grad().to_vector<double>();
  EXPECT_EQ(order(ops::multiply(cx_, x, x)),
            (std::vector<uint64_t>{weight.id(), bias.id(), x.id()}));
  EXPECT_NE(weight.grad().to_vector<double>(), once);
}

TEST_F(TapeTest, RowsOfATableMayBeTakenApart) {
  const Tensor tied = leaf({6, 4}, 1), other = leaf({5, 4}, 2);
  const Tensor ids = Tensor::from<int64_t>(cx_.allocator, {3}, std::vector<int64_t>{3, 2, 3});
  const auto sum = [&] {
    const Tensor x = ops::add(cx_, ops::embedding(cx_, ids, tied), ops::embedding(cx_, ids, other));
    return ops::sum_all(cx_, ops::linear(cx_, x, tied, Tensor(), ops::WeightLayout::kOutIn));
  };
  bench_.tape.backward(cx_, sum());
  const std::vector<double> whole = tied.grad().to_vector<double>();
  const std::vector<double> whole_other = other.grad().to_vector<double>();
  tied.set_grad(Tensor());
  other.set_grad(Tensor());

  std::vector<std::string> order;
  std::map<uint64_t, RowGradient> taken;
  const Tensor y = sum();
  bench_.tape.take_rows({tied.id(), other.id()}, [&](const Tensor& table, RowGradient rows) {
    order.push_back("rows");
    taken[table.id()] = std::move(rows);
  });
  bench_.tape.on_leaf_ready([&](const Tensor& leaf) {
    EXPECT_EQ(leaf.id(), tied.id());
    order.push_back("ready");
  });
  EXPECT_EQ(bench_.tape.leaves(), (std::unordered_set<uint64_t>{tied.id()}));
  EXPECT_EQ(bench_.tape.row_count(other), 3);
  EXPECT_EQ(bench_.tape.row_count(tied), 3);
  EXPECT_EQ(bench_.tape.row_count(ids), 0);
  bench_.tape.backward(cx_, y);
  EXPECT_EQ(order, (std::vector<std::string>{"ready", "rows", "rows"}));
  EXPECT_FALSE(other.grad());
  Tensor sums = Tensor::zeros(cx_.allocator, {20}, DType::kF64);
  ops::add_rows(cx_, taken.at(other.id()), 0, sums);
  EXPECT_EQ(sums.to_vector<double>(), whole_other);
  // Elements 9 to 14 of the other: parts of rows 2 and 3.
  const std::vector<double> rest = tied.grad().to_vector<double>();
  const Tensor some =
      Tensor::from<double>(cx_.allocator, {6}, std::vector<double>(&rest[9], &rest[15]));
  ops::add_rows(cx_, taken.at(tied.id()), 9, some);
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(some.to_vector<double>()[i], whole[9 + i], 1e-12);
}

TEST_F(TapeTest, GradientsThatArePutOffComeBehindAllOthersTheLastFirst) {
  const Tensor table = leaf({6, 4}, 1), first = leaf({4, 4}, 2), bias = leaf({4}, 3),
               second = leaf({4, 4}, 4), third = leaf({4, 4}, 5);
  const Tensor ids = Tensor::from<int64_t>(cx_.allocator, {3}, std::vector<int64_t>{3, 2, 3});
  const auto sum = [&] {
    const Tensor x = ops::embedding(cx_, ids, table);
    const auto layout = ops::WeightLayout::kInOut;
    Tensor y = ops::linear(cx_, x, first, bias, layout);
    y = ops::linear(cx_, y, second, Tensor(), layout, std::nullopt, x);  // and x itself
    y = ops::linear(cx_, y, third, Tensor(), layout, ops::Activation::kRelu);
    return ops::sum_all(cx_, y);
  };
  const std::array leaves = {table, first, bias, second, third};
  const auto gradients = [&] {
    std::vector<std::vector<double>> all;
    for (const Tensor& each : leaves) {
      all.push_back(each.grad().to_vector<double>());
      each.set_grad(Tensor());
    }
    return all;
  };
  bench_.tape.backward(cx_, sum());
  const auto at_once = gradients();

  std::vector<uint64_t> order;
  const Tensor y = sum();
  bench_.tape.on_leaf_ready([&](const Tensor& each) { order.push_back(each.id()); });
  // The third has an activation, which cannot be put off.
  bench_.tape.put_off({first.id(), second.id(), third.id()}, [&] { order.push_back(0); });
  bench_.tape.backward(cx_, y);
  EXPECT_EQ(order,
            (std::vector<uint64_t>{third.id(), table.id(), 0, first.id(), bias.id(), second.id()}));
  EXPECT_EQ(gradients(), at_once);

  // What the backward pass does not come to is ready all the same.
  order.clear();
  const Tensor other = ops::scale(cx_, bias, 3);
  ops::linear(cx_, table, first, Tensor(), ops::WeightLayout::kOutIn);
  bench_.tape.backward(cx_, ops::sum_all(cx_, other));
  EXPECT_EQ(order, (std::vector<uint64_t>{bias.id(), 0, table.id(), first.id()}));
  EXPECT_FALSE(first.grad());
}

TEST_F(TapeTest, RowsOfATableAreAddedToTheGradientThatItsLeafHolds) {
  constexpr int64_t kRows = 5000, kWidth = 8, kBytes = kRows * kWidth * 8;
  const Tensor table = leaf({kRows, kWidth}, 1);
  const Tensor ids = Tensor::from<int64_t>(cx_.allocator, {3}, std::vector<int64_t>{7, 2, 7});
  bench_.tape.backward(cx_, ops::sum_all(cx_, ops::scale(cx_, table, 3)));
  const Tensor y = ops::sum_all(cx_, ops::embedding(cx_, ids, table));
  cx_.allocator.reset_peak();
  bench_.tape.backward(cx_, y);
  EXPECT_LT(cx_.allocator.stats().peak_bytes, 2 * kBytes + kBytes / 2);  // no second gradient
  const std::vector<double> gradient = table.grad().to_vector<double>();
  for (size_t i = 0; i < gradient.size(); ++i) {
    ASSERT_DOUBLE_EQ(gradient[i], i / kWidth == 7 ? 5 : i / kWidth == 2 ? 4 : 3) << i;
  }
  // Gradients that are asked for by name leave the leaf's alone.
  const Tensor again = ops::sum_all(cx_, ops::embedding(cx_, ids, table));
  const Tensor named = bench_.tape.gradients(cx_, again, Tensor(), std::array{table})[0];
  EXPECT_DOUBLE_EQ(named.to_vector<double>()[7 * kWidth], 2);
  EXPECT_EQ(table.grad().to_vector<double>(), gradient);
}

TEST_F(TapeTest, ABranchThatIsNotAskedForIsDropped) {
  const Tensor x = leaf({2}, 1), other = leaf({2}, 2);
  const Tensor y = ops::scale(cx_, x, 3);
  ops::multiply(cx_, x, other);
  bench_.tape.backward(cx_, y);
  EXPECT_EQ(x.grad().to_vector<double>(), std::vector<double>(2, 3));
  EXPECT_FALSE(other.grad());
  EXPECT_EQ(bench_.tape.size(), 0U);
}

TEST_F(TapeTest, AnOutputHasOneBackwardPass) {
  const Tensor x = leaf({2}, 1);
  const Tensor y = ops::scale(cx_, x, 3);
  bench_.tape.backward(cx_, y);
  EXPECT_DEATH(bench_.tape.backward(cx_, y), "walked once");
  ops::scale(cx_, x, 2);
  EXPECT_DEATH(bench_.tape.gradients(cx_, y, Tensor(), std::array{x}), "walked once");
  // A leaf is its own output, and what needs no gradient has none.
  bench_.tape.backward(cx_, x);
  EXPECT_EQ(x.grad().to_vector<double>(), std::vector<double>(2, 4));
  bench_.tape.backward(cx_, random_tensor(cx_, {2}, 5));
}

TEST_F(TapeTest, MemoryOfAnEntryIsFreedAsTheBackwardPassGoes) {
  constexpr int64_t kElements = 1 << 16, kBytes = kElements * 8, kDepth = 16;
  const Tensor x = leaf({kElements}, 1);
  Tensor y = x;
  for (int i = 0; i < kDepth; ++i) y = ops::activate(cx_, y, ops::Activation::kTanh);
  const int64_t forward = cx_.allocator.stats().live_bytes;
  EXPECT_GE(forward, kDepth * kBytes);
  cx_.allocator.reset_peak();
  bench_.tape.backward(cx_, y);
  // What was saved goes as gradients come: never more than three of them on top.
  EXPECT_LE(cx_.allocator.stats().peak_bytes, forward + 3 * kBytes);
  EXPECT_EQ(cx_.allocator.stats().live_bytes, 3 * kBytes);  // x, its gradient, y
}

TEST_F(TapeTest, AStepTakesNothingFromTheSystemAfterTheSecond) {
  const Tensor w = leaf({64, 64}, 1), x = random_tensor(cx_, {128, 64}, 2);
  const auto step = [&] {
    Tensor y = ops::linear(cx_, x, w, Tensor(), ops::WeightLayout::kInOut);
    y = ops::softmax(cx_, ops::activate(cx_, y, ops::Activation::kGeluTanh), -1);
    bench_.tape.backward(cx_, ops::sum_all(cx_, ops::multiply(cx_, y, y)));
    w.set_grad(Tensor());
  };
  step();
  step();
  const int64_t calls = cx_.allocator.stats().system_calls;
  for (int i = 0; i < 5; ++i) step();
  EXPECT_EQ(cx_.allocator.stats().system_calls, calls);
}

// The block captures two leaves and a tensor recorded outside it.
TEST_F(TapeTest, CheckpointedGivesTheSameGradientsAndHooks) {
  const Tensor x = leaf({5, 4}, 1), w = leaf({4, 4}, 2), shared = leaf({4}, 3);
  const auto run = [&](bool checkpoint) {
    const Tensor outside = ops::scale(cx_, shared, 2);
    const auto block = [&](Context& cx, const Tensor& in) {
      Tensor y = ops::linear(cx, in, w, shared, ops::WeightLayout::kInOut);
      y = ops::activate(cx, y, ops::Activation::kTanh);
      return ops::multiply(cx, ops::dropout(cx, y, 0.3, {4, 5}, {y.shape(), {0, 0}}), outside);
    };
    std::vector<uint64_t> ready;
    bench_.tape.on_leaf_ready([&](const Tensor& leaf) { ready.push_back(leaf.id()); });
    const Tensor y = checkpoint ? checkpointed(cx_, block, x) : block(cx_, x);
    EXPECT_EQ(bench_.tape.size(), checkpoint ? 2U : 5U);
    bench_.tape.backward(cx_, ops::add(cx_, y, outside));
    EXPECT_EQ(ready.size(), 3U);
    EXPECT_EQ(ready.back(), shared.id());
    std::vector<std::vector<double>> grads;
    for (const Tensor& leaf : {x, w, shared}) {
      grads.push_back(leaf.grad().to_vector<double>());
      leaf.set_grad(Tensor());
    }
    return grads;
  };
  const auto plain = run(false), checkpoint = run(true);
  for (size_t i = 0; i < plain.size(); ++i) {
    ASSERT_EQ(plain[i].size(), checkpoint[i].size());
    for (size_t e = 0; e < plain[i].size(); ++e) {
      EXPECT_NEAR(plain[i][e], checkpoint[i][e], 1e-13);
    }
  }
}

TEST_F(TapeTest, NestedCheckpointsWithoutAGradientOfTheInput) {
  const Tensor x = random_tensor(cx_, {3, 4}, 1);
  const Tensor w = leaf({4, 4}, 2), v = leaf({4, 4}, 3);
  const auto inner = [&](Context& cx, const Tensor& in) {
    return ops::activate(cx, ops::matmul(cx, in, w), ops::Activation::kSilu);
  };
  const auto outer = [&](Context& cx, const Tensor& in) {
    return ops::matmul(cx, checkpointed(cx, inner, in), v);
  };
  testing::expect_gradients(cx_, {w, v}, [&](Context& cx, std::span<const Tensor>) {
    return checkpointed(cx, outer, x);
  });
}

TEST_F(TapeTest, CheckpointedKeepsOnlyTheInput) {
  constexpr int64_t kElements = 1 << 16, kBytes = kElements * 8;
  const Tensor x = leaf({kElements}, 1);
  const int64_t before = cx_.allocator.stats().live_bytes;
  const auto block = [](Context& cx, const Tensor& in) {
    Tensor out = in;
    for (int i = 0; i < 8; ++i) out = ops::activate(cx, out, ops::Activation::kTanh);
    return out;
  };
  const Tensor y = checkpointed(cx_, block, x);
  EXPECT_EQ(cx_.allocator.stats().live_bytes, before + kBytes);  // the output
}

}  // namespace
}  // namespace weft
