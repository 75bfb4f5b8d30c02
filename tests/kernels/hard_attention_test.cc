// Hard attention: what is drawn, and that the estimators of its gradient are right on average.
#include "kernels/attention/hard.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/ops/elementwise.h"
#include "tests/testing/gradient_check.h"

namespace weft::attention {
namespace {

using testing::Bench;
using testing::random_tensor;

constexpr int64_t kSamples = 20000, kKeys = 5, kValues = 3;

class HardAttention : public ::testing::Test {
 protected:
  HardAttention() {
    cx.tape = &bench.tape;
    logits = random_tensor(bench.context, {1, 1, kKeys}, 1);
    values = random_tensor(bench.context, {1, kKeys, kValues}, 2);
    target = random_tensor(bench.context, {kValues}, 3);
  }

  // The same for every sample, each a leaf of its own, so that gradients come sample by sample.
  Tensor samples_of(const Tensor& x) {
    Shape shape = x.shape();
    shape[0] = kSamples;
    std::vector<double> repeated;
    for (int64_t i = 0; i < kSamples; ++i) {
      const std::vector<double> one = x.to_vector<double>();
      repeated.insert(repeated.end(), one.begin(), one.end());
    }
    return Tensor::from<double>(cx.allocator, shape, repeated).set_requires_grad(true);
  }

  // |context - target|^2, [.., Tq].
  Tensor loss_of(const Tensor& context) {
    return ops::sum(cx, ops::square(cx, ops::subtract(cx, context, target)), -1);
  }

  Choice choose_all(const Tensor& scores) {
    return choose(cx, scores, Tensor(), {17, 5}, {Shape{kSamples, 1}, {0, 0}});
  }

  // The loss of each key, [1, kKeys].
  Tensor losses() { return loss_of(values); }

  Bench bench;
  Context cx = bench.context;
  Tensor logits, values, target;
};

struct Moments {
  std::vector<double> mean, error;  // standard error of the mean
  double variance = 0;              // of a sample, summed over the elements
};
Moments moments_of(const Tensor& samples) {
  const std::vector<double> all = samples.to_vector<double>();
  const size_t count = static_cast<size_t>(samples.dim(0)), width = all.size() / count;
  Moments m{std::vector<double>(width), std::vector<double>(width)};
  for (size_t e = 0; e < width; ++e) {
    for (size_t i = 0; i < count; ++i) m.mean[e] += all[i * width + e] / static_cast<double>(count);
    double squares = 0;
    for (size_t i = 0; i < count; ++i) squares += std::pow(all[i * width + e] - m.mean[e], 2);
    m.variance += squares / static_cast<double>(count);
    m.error[e] = std::sqrt(squares) / static_cast<double>(count);
  }
  return m;
}

void expect_within_three_errors(const Moments& sampled, const std::vector<double>& exact) {
  ASSERT_EQ(sampled.mean.size(), exact.size());
  for (size_t e = 0; e < exact.size(); ++e) {
    EXPECT_GT(sampled.error[e], 0) << e;
    EXPECT_NEAR(sampled.mean[e], exact[e], 3 * sampled.error[e]) << e;
  }
}

TEST_F(HardAttention, ReinforceIsRightOnAverage) {
  Tensor exact_logits = logits.detach().set_requires_grad(true);
  values.set_requires_grad(true);
  const Tensor probabilities = ops::softmax(cx, exact_logits, -1);
  bench.tape.backward(cx, ops::sum_all(cx, ops::multiply(cx, probabilities, losses())));
  const std::vector<double> d_logits = exact_logits.grad().to_vector<double>();
  const std::vector<double> d_values = values.grad().to_vector<double>();

  double variance_without = 0;
  for (const double baseline : {0.0, 3.0}) {
    const Tensor scores = samples_of(logits), all_values = samples_of(values);
    const Choice choice = choose_all(scores);
    const Tensor loss = loss_of(chosen_values(cx, all_values, choice.index));
    const Tensor surrogate = reinforce(cx, choice.log_probability, loss, baseline);
    bench.tape.backward(cx, ops::add(cx, surrogate, ops::sum_all(cx, loss)));
    const Moments sampled = moments_of(scores.grad());
    expect_within_three_errors(sampled, d_logits);
    expect_within_three_errors(moments_of(all_values.grad()), d_values);
    if (baseline == 0) variance_without = sampled.variance;
    if (baseline != 0) {
      EXPECT_LT(sampled.variance, variance_without);
    }
  }
}

// Its expectation is not the gradient of the expected loss, but the sum over keys of the
// probability of each times the gradient that its draw gives.
TEST_F(HardAttention, StraightThroughIsWhatItsEnumerationSays) {
  const auto backward = [&](const Tensor& scores, const Tensor& weights, const Tensor& index) {
    const Tensor context = ops::matmul(cx, straight_through(cx, weights, index), values);
    bench.tape.backward(cx, ops::sum_all(cx, loss_of(context)));
    return scores.grad();
  };
  std::vector<double> expected(kKeys);
  const std::vector<double> probability = ops::softmax(cx, logits, -1).to_vector<double>();
  for (int64_t key = 0; key < kKeys; ++key) {
    Tensor scores = ops::contiguous(cx, logits).detach().set_requires_grad(true);
    const Tensor index = testing::ids(cx, {1, 1}, {key});
    const Tensor gradient = backward(scores, ops::softmax(cx, scores, -1), index);
    for (size_t e = 0; e < kKeys; ++e) {
      expected[e] += probability[static_cast<size_t>(key)] * gradient.to_vector<double>()[e];
    }
    scores.set_grad(Tensor());
  }
  const Tensor scores = samples_of(logits);
  const Choice choice = choose_all(scores);
  const Tensor gradient = backward(scores, choice.weights, choice.index);
  expect_within_three_errors(moments_of(gradient), expected);
}

TEST_F(HardAttention, KeysAreDrawnAsOftenAsTheirWeightsSay) {
  const Choice choice = choose_all(samples_of(logits));
  std::vector<double> counts(kKeys);
  for (const int64_t key : choice.index.to_vector<int64_t>()) ++counts[static_cast<size_t>(key)];
  for (size_t key = 0; key < kKeys; ++key) {
    const double p = choice.weights.to_vector<double>()[key];
    EXPECT_NEAR(counts[key] / kSamples, p, 3 * std::sqrt(p * (1 - p) / kSamples)) << key;
  }
}

TEST_F(HardAttention, AShardDrawsWhatTheWholeDraws) {
  const Tensor scores = random_tensor(cx, {6, 4, 9}, 4);
  const RandomKey key{3, 1};
  const Tensor whole = draw(cx, scores, key, {Shape{6, 4}, {0, 0}});
  const Tensor part = draw(cx, ops::slice(cx, ops::slice(cx, scores, 0, 2, 3), 1, 1, 2), key,
                           {Shape{6, 4}, {2, 1}});
  EXPECT_EQ(part.to_vector<int64_t>(),
            ops::slice(cx, ops::slice(cx, whole, 0, 2, 3), 1, 1, 2).to_vector<int64_t>());
}

TEST_F(HardAttention, NanComesThrough) {
  const Tensor scores = Tensor::from<double>(cx.allocator, {1, 2, 3},
                                             std::vector<double>{1, std::nan(""), 2, 1, 0, 2});
  const Choice choice = choose(cx, scores, Tensor(), {3, 1}, {Shape{1, 2}, {0, 0}});
  for (const Tensor& x : {choice.log_probability, choice.entropy}) {
    EXPECT_TRUE(std::isnan(x.to_vector<double>()[0]));
    EXPECT_TRUE(std::isfinite(x.to_vector<double>()[1]));
  }
}

TEST_F(HardAttention, AQueryThatSeesNothingDrawsNothing) {
  const Tensor visible =
      Tensor::from<uint8_t>(cx.allocator, {1, 2, 3}, std::vector<uint8_t>{0, 0, 0, 0, 1, 0});
  Tensor scores = random_tensor(bench.context, {1, 2, 3}, 5);
  scores.set_requires_grad(true);
  const Choice choice = choose(cx, scores, visible, {3, 1}, {Shape{1, 2}, {0, 0}});
  EXPECT_EQ(choice.index.to_vector<int64_t>(), (std::vector<int64_t>{-1, 1}));
  EXPECT_EQ(choice.log_probability.to_vector<double>(), (std::vector<double>{0, 0}));
  EXPECT_EQ(choice.entropy.to_vector<double>(), (std::vector<double>{0, 0}));
  const Tensor context = chosen_values(cx, random_tensor(cx, {1, 3, 2}, 6), choice.index);
  EXPECT_EQ(context.to_vector<double>()[0], 0);
  EXPECT_NE(context.to_vector<double>()[2], 0);
  bench.tape.backward(cx, ops::sum_all(cx, ops::add(cx, choice.log_probability, choice.entropy)));
  EXPECT_EQ(scores.grad().to_vector<double>(), std::vector<double>(6, 0));
}

TEST(MovingBaseline, FollowsTheMeanLoss) {
  MovingBaseline baseline(0.9);
  for (int i = 0; i < 3; ++i) baseline.update(2);
  EXPECT_DOUBLE_EQ(baseline.value(), 2 * (1 - std::pow(0.9, 3)));
}

}  // namespace
}  // namespace weft::attention
