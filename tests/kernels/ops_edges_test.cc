// What the case table cannot judge: ties, NaN, nothing to choose from, and bad numbers from
// outside.
#include <cmath>
#include <limits>

#include "kernels/ops/elementwise.h"
#include "kernels/ops/indexing.h"
#include "kernels/ops/losses.h"
#include "kernels/ops/norms.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/reductions.h"
#include "kernels/ops/segments.h"
#include "kernels/tensor/strided.h"
#include "proto/base/status.h"
#include "tests/testing/gradient_check.h"

namespace weft::ops {
namespace {

using testing::Bench;
using testing::ids;

class OpsEdges : public ::testing::Test {
 protected:
  Bench bench_;
  Context& cx_ = bench_.context;

  Tensor floats(Shape shape, const std::vector<float>& values) {
    return Tensor::from<float>(cx_.allocator, shape, values);
  }
  // The gradient of sum(f(x)) at x.
  std::vector<float> gradient(Tensor x, const std::function<Tensor(Context&, const Tensor&)>& f) {
    Tape tape;
    Context recording = cx_;
    recording.tape = &tape;
    x.set_requires_grad(true);
    tape.backward(cx_, f(recording, x));
    return x.grad().to_vector<float>();
  }
  std::string refused(const std::function<void()>& f) {
    try {
      f();
    } catch (const StatusError& error) {
      return error.status().field() + " " + error.status().value();
    }
    return "accepted";
  }
};

const float kNan = std::numeric_limits<float>::quiet_NaN();
const float kInfinity = std::numeric_limits<float>::infinity();

TEST_F(OpsEdges, EqualOnesShareTheGradientOfTheLarger) {
  const Tensor same = floats({3}, {1, 2, 3});
  EXPECT_EQ(gradient(floats({3}, {1, 3, 2}),
                     [&](Context& cx, const Tensor& x) { return maximum(cx, x, same); }),
            (std::vector<float>{0.5F, 1, 0}));
}

TEST_F(OpsEdges, ExtremesAreTheFirstAndNanWins) {
  const Tensor x = floats(
      {3, 4}, {1, 5, 5, 2, 1, kNan, 7, kNan, -kInfinity, -kInfinity, -kInfinity, -kInfinity});
  EXPECT_EQ(argmax(cx_, x, 1).to_vector<int64_t>(), (std::vector<int64_t>{1, 1, 0}));
  EXPECT_EQ(argmin(cx_, x, 1).to_vector<int64_t>(), (std::vector<int64_t>{0, 1, 0}));
  const std::vector<int> turned{1, 0};
  const Tensor columns = contiguous(cx_, permute(cx_, x, turned));  // the other loop
  EXPECT_EQ(argmax(cx_, columns, 0).to_vector<int64_t>(), (std::vector<int64_t>{1, 1, 0}));
  EXPECT_EQ(argmin(cx_, columns, 0).to_vector<int64_t>(), (std::vector<int64_t>{0, 1, 0}));
}

TEST_F(OpsEdges, NanIsSortedAsTheLargest) {
  const Tensor x = floats({4}, {2, kNan, 1, kNan});
  EXPECT_EQ(argsort(cx_, x, 0).to_vector<int64_t>(), (std::vector<int64_t>{2, 0, 1, 3}));
  EXPECT_EQ(argsort(cx_, x, 0, true).to_vector<int64_t>(), (std::vector<int64_t>{1, 3, 0, 2}));
  EXPECT_EQ(top_k(cx_, x, 3, 0).indices.to_vector<int64_t>(), (std::vector<int64_t>{1, 3, 0}));
}

// What diverges is to be seen at the loss.
TEST_F(OpsEdges, NanComesThroughEveryActivation) {
  const Tensor x = floats({2}, {kNan, 1});
  const Tensor weight = floats({1, 1}, {1});
  for (const Activation kind : {Activation::kGeluTanh, Activation::kGeluErf, Activation::kRelu,
                                Activation::kSilu, Activation::kTanh, Activation::kSigmoid}) {
    const auto nans = [&](const Tensor& y) {
      const std::vector<float> values = cast(cx_, y, DType::kF32).to_vector<float>();
      return std::vector{std::isnan(values[0]), std::isnan(values[1])};
    };
    const std::vector expected{true, false};
    EXPECT_EQ(nans(activate(cx_, x, kind)), expected) << static_cast<int>(kind);
    EXPECT_EQ(nans(activate(cx_, cast(cx_, x, DType::kBF16), kind)), expected);
    EXPECT_EQ(
        nans(linear(cx_, reshape(cx_, x, {2, 1}), weight, Tensor(), WeightLayout::kOutIn, kind)),
        expected);
  }
  EXPECT_EQ(gradient(x, [](Context& cx,
                           const Tensor& at) { return activate(cx, at, Activation::kRelu); }),
            (std::vector<float>{1, 1}));
}

// As in PyTorch, where NaN has a slope of its own and takes part in every comparison that it does
// not lose.
TEST_F(OpsEdges, GradientsAtNan) {
  const std::vector<float> points{kNan, -3, 0, 3};
  const Tensor x = floats({4}, points), other = floats({4}, {1, kNan, kNan, 3});
  const auto slopes = [&](const std::function<Tensor(Context&, const Tensor&)>& f) {
    return gradient(floats({4}, points), f);
  };
  const auto is_nan = [](const std::vector<float>& values) { return std::isnan(values[0]); };
  const std::vector<float> swish = slopes(hard_swish);
  EXPECT_TRUE(std::isnan(swish[0]));
  EXPECT_EQ(std::vector(swish.begin() + 1, swish.end()), (std::vector<float>{0, 0.5F, 1}));
  EXPECT_TRUE(is_nan(hard_swish(cx_, x).to_vector<float>()));
  EXPECT_TRUE(is_nan(hard_sigmoid(cx_, x).to_vector<float>()));
  const auto clamped = [](Context& cx, const Tensor& at) { return clamp(cx, at, -1, 1); };
  EXPECT_EQ(slopes(clamped), (std::vector<float>{0, 0, 1, 0}));
  for (const auto& extreme : {minimum, maximum}) {
    const auto left = [&](Context& cx, const Tensor& at) { return extreme(cx, at, other); };
    const auto right = [&](Context& cx, const Tensor& at) { return extreme(cx, other, at); };
    EXPECT_EQ(slopes(left), (std::vector<float>{1, 1, 1, 0.5F}));
    EXPECT_EQ(slopes(right), (std::vector<float>{1, 1, 1, 0.5F}));
  }
}

TEST_F(OpsEdges, TopOfEqualOnesTakesTheFirst) {
  const Tensor x = floats({6}, {1, 3, 3, 3, 1, 3});
  EXPECT_EQ(top_k(cx_, x, 3, 0).indices.to_vector<int64_t>(), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(top_k(cx_, x, 2, 0, false).indices.to_vector<int64_t>(), (std::vector<int64_t>{0, 4}));
}

TEST_F(OpsEdges, LogSoftmaxOfExtremes) {
  const Tensor x = floats({2, 3}, {1000, 0, -1000, -kInfinity, -kInfinity, -kInfinity});
  const std::vector<float> y = log_softmax(cx_, x, -1).to_vector<float>();
  EXPECT_EQ(y, (std::vector<float>{0, -1000, -2000, 0, 0, 0}));
}

// Also where no other number is beside it, which alone would leave nothing to choose from.
TEST_F(OpsEdges, NanComesThroughSoftmax) {
  const Tensor x = floats({3, 2}, {kNan, kNan, -kInfinity, kNan, -kInfinity, -kInfinity});
  const std::vector expected{true, true, true, true, false, false};
  const std::vector<int> turned{1, 0};
  for (const auto& f : {softmax, log_softmax}) {
    const auto nans = [&](const Tensor& y) {
      std::vector<bool> found;
      for (const float value : y.to_vector<float>()) found.push_back(std::isnan(value));
      return found;
    };
    EXPECT_EQ(nans(f(cx_, x, -1)), expected);
    EXPECT_EQ(nans(permute(cx_, f(cx_, permute(cx_, x, turned), 0), turned)), expected);
    EXPECT_EQ(nans(cast(cx_, f(cx_, cast(cx_, x, DType::kBF16), -1), DType::kF32)), expected);
  }
}

TEST_F(OpsEdges, SegmentsOfNothingHaveNoShares) {
  const Tensor x = floats({6}, {-kInfinity, -kInfinity, 0, -kInfinity, kNan, 1});
  const Tensor segment = ids(cx_, {6}, {0, 0, 1, 1, 2, 2});
  const auto shares = [&](Context& cx, const Tensor& of) {
    return segment_softmax(cx, of, segment, 3);
  };
  const std::vector<float> y = shares(cx_, x).to_vector<float>();
  EXPECT_EQ(std::vector<float>(y.begin(), y.begin() + 4), (std::vector<float>{0, 0, 1, 0}));
  EXPECT_TRUE(std::isnan(y[4]) && std::isnan(y[5]));
  const std::vector<float> slopes = gradient(x, [&](Context& cx, const Tensor& of) {
    return multiply(cx, shares(cx, of), floats({6}, {1, 2, 3, 4, 5, 6}));
  });
  EXPECT_EQ(std::vector<float>(slopes.begin(), slopes.begin() + 4), std::vector<float>(4, 0));
}

TEST_F(OpsEdges, InfinityComesThroughEveryActivation) {
  const Tensor x = floats({1}, {kInfinity});
  for (const auto& [kind, expected] :
       std::vector<std::pair<Activation, double>>{{Activation::kGeluTanh, HUGE_VAL},
                                                  {Activation::kGeluErf, HUGE_VAL},
                                                  {Activation::kRelu, HUGE_VAL},
                                                  {Activation::kSilu, HUGE_VAL},
                                                  {Activation::kTanh, 1},
                                                  {Activation::kSigmoid, 1}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64}) {
      const Tensor y = activate(cx_, cast(cx_, x, dtype), kind);
      EXPECT_EQ(cast(cx_, y, DType::kF64).to_vector<double>()[0], expected)
          << static_cast<int>(kind) << " " << dtype_name(dtype);
    }
  }
}

TEST_F(OpsEdges, VarianceOfTooFewIsNan) {
  const std::vector<int> last{1};
  for (const Shape& shape : {Shape{2, 1}, Shape{2, 0}}) {
    const std::vector<float> y =
        variance(cx_, Tensor::zeros(cx_.allocator, shape), last).to_vector<float>();
    ASSERT_EQ(y.size(), 2U);
    EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1])) << shape.to_string();
  }
}

TEST_F(OpsEdges, LossesOfExtremesAreFinite) {
  const Tensor x = floats({2}, {100, -100});
  EXPECT_EQ(binary_cross_entropy_sum(cx_, x, floats({2}, {0, 1})).to_vector<float>()[0], 200);
  EXPECT_EQ(binary_cross_entropy_sum(cx_, x, floats({2}, {1, 0})).to_vector<float>()[0], 0);
  EXPECT_EQ(softplus(cx_, x).to_vector<float>(), (std::vector<float>{100, 0}));
  // A probability of zero adds nothing, whatever the logarithm beside it.
  EXPECT_EQ(kl_divergence_sum(cx_, floats({2}, {-kInfinity, 0}), floats({2}, {0, 1}))
                .to_vector<float>()[0],
            0);
}

TEST_F(OpsEdges, TargetsThatNoPathReachesCostInfinityAndPullNowhere) {
  const Tensor x = floats({2, 1, 3}, {0, 1, 2, 2, 1, 0});
  const auto loss = [&](Context& cx, const Tensor& logits) {
    return ctc_loss(cx, logits, ids(cx, {1, 3}, {1, 2, 1}), ids(cx, {1}, {2}), ids(cx, {1}, {3}));
  };
  EXPECT_EQ(loss(cx_, x).to_vector<float>()[0], kInfinity);
  EXPECT_EQ(gradient(x, loss), std::vector<float>(6, 0.0F));
}

TEST_F(OpsEdges, NumbersOutOfRangeAreToldByFieldAndValue) {
  const Tensor x = Tensor::zeros(cx_.allocator, Shape{3, 2});
  const auto at = [&](int64_t value) { return ids(cx_, {1}, {value}); };
  EXPECT_EQ(refused([&] { index_select(cx_, x, 0, at(3)); }), "index 3");
  EXPECT_EQ(refused([&] { index_select(cx_, x, 0, at(-1)); }), "index -1");
  EXPECT_EQ(refused([&] { gather(cx_, x, 1, ids(cx_, {1, 1}, {2})); }), "index 2");
  EXPECT_EQ(refused([&] { one_hot(cx_, at(5), 5); }), "index 5");
  const Tensor rows = ids(cx_, {3}, {0, 4, 1});
  EXPECT_EQ(refused([&] { segment_sum(cx_, x, rows, 4); }), "segment 4");
  EXPECT_EQ(refused([&] { segments_of_offsets(cx_, ids(cx_, {3}, {0, 2, 1})); }), "offsets 1");
  const Tensor logits = Tensor::zeros(cx_.allocator, Shape{2, 1, 3});
  const auto ctc = [&](int64_t target, int64_t times, int64_t labels) {
    return refused([&] {
      ctc_loss(cx_, logits, ids(cx_, {1, 1}, {target}), at(times), at(labels));
    });
  };
  EXPECT_EQ(ctc(0, 2, 1), "targets 0");
  EXPECT_EQ(ctc(3, 2, 1), "targets 3");
  EXPECT_EQ(ctc(1, 3, 1), "input_lengths 3");
  EXPECT_EQ(ctc(1, 2, 2), "target_lengths 2");
  EXPECT_EQ(ctc(1, 2, 1), "accepted");
}

TEST_F(OpsEdges, BatchNormKeepsItsRunningStatistics) {
  const Tensor x = floats({4, 1}, {1, 2, 3, 4}), one = floats({1}, {1}), zero = floats({1}, {0});
  RunningStatistics running{weft::clone(cx_.pool, zero), weft::clone(cx_.pool, one)};
  batch_norm_training(cx_, x, one, zero, 0, &running, 0.5);
  EXPECT_FLOAT_EQ(running.mean.to_vector<float>()[0], 1.25F);
  EXPECT_FLOAT_EQ(running.variance.to_vector<float>()[0], 0.5F + 0.5F * 5 / 3);
}

// Squares are taken around each row's own mean first: what rows differ by counts.
TEST_F(OpsEdges, BatchNormOfRowsFarFromZeroAndApart) {
  constexpr int64_t kSamples = 6, kElements = 5000;
  const Tensor x = testing::random_tensor<float>(cx_, {kSamples, 1, kElements}, 1);
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < x.elements(); ++i) {
    x.data<float>()[i] += 300.0F + 2.0F * static_cast<float>(i / kElements);
    sum += double{x.data<float>()[i]};
  }
  const double count = kSamples * kElements, mean = sum / count;
  for (int64_t i = 0; i < x.elements(); ++i) {
    squares += std::pow(double{x.data<float>()[i]} - mean, 2);
  }
  const Tensor one = floats({1}, {1}), zero = floats({1}, {0});
  RunningStatistics running{weft::clone(cx_.pool, zero), weft::clone(cx_.pool, zero)};
  batch_norm_training(cx_, x, one, zero, 0, &running, 1);
  EXPECT_NEAR(running.mean.to_vector<float>()[0] / mean, 1, 1e-6);
  EXPECT_NEAR(running.variance.to_vector<float>()[0] / (squares / (count - 1)), 1, 1e-5);
}

// Statistics in fp32 beside x in bf16: the result is bf16's, that of fp32 rounded.
TEST_F(OpsEdges, BatchNormEvaluationTakesStatisticsInSingle) {
  const auto halves = [&](const Tensor& x) { return cast(cx_, x, DType::kBF16).detach(); };
  const Tensor x = halves(testing::random_tensor<float>(cx_, {3, 2, 70}, 1));
  const Tensor gamma = halves(floats({2}, {0.5F, -2})), beta = halves(floats({2}, {1, 0.25F}));
  const RunningStatistics running{floats({2}, {0.1F, -0.3F}), floats({2}, {0.7F, 1.9F})};
  const Tensor y = batch_norm_evaluation(cx_, x, gamma, beta, 1e-5, running);
  ASSERT_EQ(y.dtype(), DType::kBF16);
  const auto single = [&](const Tensor& t) { return cast(cx_, t, DType::kF32); };
  const Tensor wide =
      batch_norm_evaluation(cx_, single(x), single(gamma), single(beta), 1e-5, running);
  EXPECT_EQ(single(y).to_vector<float>(), single(halves(wide)).to_vector<float>());
}

// MMX registers are those of long double, which is NaN while they are in use.
TEST_F(OpsEdges, RunningSumsLeaveLongDoubleAlone) {
  const Tensor x = testing::random_tensor<double>(cx_, {3, 37}, 1);
  for (const bool reverse : {false, true}) cumulative_sum(cx_, x, -1, reverse);
  const volatile long double one = 1;
  EXPECT_EQ(one + one, 2.0L);
}

// Halves of the batch, as two ranks hold them, sum to the bits of the whole.
TEST_F(OpsEdges, BlocksOfSeveralDimsMergeToTheWhole) {
  const Tensor x = testing::random_tensor<float>(cx_, {8, 5, 3}, 1);
  Context whole = cx_, half = cx_;
  whole.block_count = 4;
  half.block_count = 2;
  const std::vector<int> dims{0, 2};
  const auto part = [&](int64_t start) { return sum(half, slice(cx_, x, 0, start, 4), dims); };
  EXPECT_EQ(add(cx_, part(0), part(4)).to_vector<float>(), sum(whole, x, dims).to_vector<float>());
}

}  // namespace
}  // namespace weft::ops
