// Fused ops against finite differences and against their plain compositions, and the memory that
// the loss of a language model takes.
#include "kernels/ops/ops.h"

#include <limits>

#include "kernels/cpu/gemm_libraries.h"
#include "proto/base/status.h"
#include "tests/testing/gradient_check.h"

namespace weft::ops {
namespace {

using testing::Bench;
using testing::random_tensor;
using Inputs = std::span<const Tensor>;

struct LinearCase {
  std::string name;
  Shape x;
  int64_t out;
  WeightLayout layout;
  bool bias, residual;
  std::optional<Activation> activation;
};

std::vector<LinearCase> linear_cases() {
  using enum WeightLayout;
  using enum Activation;
  return {
      {"gelu_tanh", {2, 3, 5}, 7, kInOut, true, false, kGeluTanh},
      {"gelu_erf", {3, 5}, 7, kOutIn, true, false, kGeluErf},
      {"silu_no_bias", {3, 5}, 7, kInOut, false, false, kSilu},
      {"residual", {2, 3, 5}, 4, kInOut, true, true, std::nullopt},
      {"residual_no_bias", {3, 5}, 4, kOutIn, false, true, std::nullopt},
      {"all", {2, 70, 3}, 9, kOutIn, true, true, kGeluTanh},
      {"one", {1, 1}, 1, kInOut, true, true, kTanh},
      {"no_rows", {0, 5}, 3, kInOut, true, true, kGeluTanh},
      {"no_inputs", {3, 0}, 4, kInOut, true, true, kGeluTanh},
      {"many_tiles", {300, 40}, 900, kInOut, true, true, kGeluErf},
  };
}

std::vector<Tensor> inputs_of(Context& cx, const LinearCase& item, DType dtype) {
  const int64_t in = item.x[-1];
  Shape y = item.x;
  y[-1] = item.out;
  std::vector<Shape> shapes = {
      item.x, item.layout == WeightLayout::kInOut ? Shape{in, item.out} : Shape{item.out, in}};
  if (item.bias) shapes.push_back({item.out});
  if (item.residual) shapes.push_back(y);
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < shapes.size(); ++i) {
    Tensor x = random_tensor(cx, shapes[i], 31 + i, 0.5);
    inputs.push_back(cast(cx, x, dtype).set_requires_grad(true));
  }
  return inputs;
}

Tensor fused(Context& cx, const LinearCase& item, Inputs x) {
  return linear(cx, x[0], x[1], item.bias ? x[2] : Tensor(), item.layout, item.activation,
                item.residual ? x.back() : Tensor());
}

Tensor composed(Context& cx, const LinearCase& item, Inputs x) {
  const std::vector<int> order = {1, 0};
  const Tensor weight = item.layout == WeightLayout::kInOut ? x[1] : permute(cx, x[1], order);
  Tensor y = matmul(cx, x[0], weight);
  if (item.bias) y = add(cx, y, x[2]);
  if (item.activation) y = activate(cx, y, *item.activation);
  return item.residual ? add(cx, x.back(), y) : y;
}

class FusedLinear : public ::testing::TestWithParam<LinearCase> {};

TEST_P(FusedLinear, GradientIsThatOfFiniteDifferences) {
  if (GetParam().x.elements() > 1000) return;  // compared with the composition below
  Bench bench;
  testing::expect_gradients(bench.context, inputs_of(bench.context, GetParam(), DType::kF64),
                            [](Context& cx, Inputs x) { return fused(cx, GetParam(), x); });
}

// In float32, no further from float64 than twice what the composition is.
TEST_P(FusedLinear, IsAsGoodAsItsComposition) {
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  const auto run = [&](DType dtype, auto&& f) {
    std::vector<Tensor> inputs = inputs_of(bench.context, GetParam(), dtype);
    std::vector<Tensor> results = {f(cx, GetParam(), inputs)};
    cx.tape->backward(cx, results[0]);
    for (const Tensor& x : inputs) results.push_back(x.grad());
    for (Tensor& x : results) x = cast(bench.context, x.detach(), DType::kF64);
    return results;
  };
  const auto exact = run(DType::kF64, composed), naive = run(DType::kF32, composed);
  const auto actual = run(DType::kF32, fused);
  for (size_t i = 0; i < exact.size(); ++i) {
    double allowed = 1e-6, off = 0;
    ASSERT_EQ(actual[i].shape(), exact[i].shape());
    for (int64_t e = 0; e < exact[i].elements(); ++e) {
      const double wanted = exact[i].data<double>()[e];
      allowed = std::max({allowed, 2 * std::abs(naive[i].data<double>()[e] - wanted),
                          3 * double{std::numeric_limits<float>::epsilon()} * std::abs(wanted)});
      off = std::max(off, std::abs(actual[i].data<double>()[e] - wanted));
    }
    EXPECT_LE(off, allowed) << "result " << i;
  }
}

// In bf16 too; weights and biases are leaves, whose gradients are fp32.
TEST_P(FusedLinear, IsAsGoodAsItsCompositionInBf16) {
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  const auto run = [&](DType dtype, auto&& f) {
    std::vector<Tensor> inputs = inputs_of(bench.context, GetParam(), DType::kBF16);
    for (Tensor& x : inputs) x = cast(bench.context, x.detach(), dtype).set_requires_grad(true);
    std::vector<Tensor> results = {f(cx, GetParam(), inputs)};
    EXPECT_EQ(results[0].dtype(), dtype);
    cx.tape->backward(cx, results[0]);
    for (const Tensor& x : inputs) results.push_back(x.grad());
    for (Tensor& x : results) x = cast(bench.context, x.detach(), DType::kF64);
    return results;
  };
  const auto exact = run(DType::kF64, composed), naive = run(DType::kBF16, composed);
  const auto actual = run(DType::kBF16, fused);
  for (size_t i = 0; i < exact.size(); ++i) {
    double allowed = 0, off = 0, largest = 0;
    for (int64_t e = 0; e < exact[i].elements(); ++e) {
      const double wanted = exact[i].data<double>()[e];
      largest = std::max(largest, std::abs(wanted));
      allowed = std::max(allowed, 1.5 * std::abs(naive[i].data<double>()[e] - wanted));
      off = std::max(off, std::abs(actual[i].data<double>()[e] - wanted));
    }
    EXPECT_LE(off, allowed + 0x1p-8 * largest) << "result " << i;
  }
}

TEST_P(FusedLinear, KeepsThePreActivationOnlyForAGradient) {
  Bench bench;
  const std::vector<Tensor> inputs = inputs_of(bench.context, GetParam(), DType::kF32);
  Context recording = bench.context;
  recording.tape = &bench.tape;
  const auto kept = [&](Context& cx) {
    const int64_t before = bench.allocator->stats().live_bytes;
    const Tensor y = fused(cx, GetParam(), inputs);
    const int64_t after = bench.allocator->stats().live_bytes;
    bench.tape.clear();
    return after - before - static_cast<int64_t>(y.bytes());
  };
  const Tensor y = fused(bench.context, GetParam(), inputs);
  EXPECT_EQ(kept(bench.context), 0);
  EXPECT_EQ(kept(recording), GetParam().activation ? static_cast<int64_t>(y.bytes()) : 0);
}

INSTANTIATE_TEST_SUITE_P(All, FusedLinear, ::testing::ValuesIn(linear_cases()),
                         [](const auto& item) { return item.param.name; });

// ---- the loss of a language model ---------------------------------------------------------------

struct LossCase {
  std::string name;
  int64_t rows, hidden, vocabulary;
  TokenLoss loss;
};

Tensor labels_of(Context& cx, const LossCase& item) {
  Tensor labels = Tensor::empty(cx.allocator, {item.rows}, DType::kI64);
  for (int64_t i = 0; i < item.rows; ++i) {
    labels.data<int64_t>()[i] = i % 5 == 3 ? item.loss.ignore_index : i * 7 % item.vocabulary;
  }
  return labels;
}

class TokenLossTest : public ::testing::TestWithParam<LossCase> {};

std::vector<LossCase> loss_cases() {
  return {
      {"plain", 6, 5, 11, {}},
      {"smoothed", 6, 5, 11, {.smoothing = 0.1}},
      {"seeded", 6, 5, 11, {.smoothing = 0.3, .seed = 0.25}},
      {"ignored_index", 6, 5, 11, {.ignore_index = 2}},
      {"one_class", 4, 3, 1, {.smoothing = 0.2}},
      {"no_rows", 0, 3, 7, {}},
      {"one_row", 1, 1, 2, {}},
      {"nothing_counts", 3, 2, 1, {.ignore_index = 0}},
  };
}

TEST_P(TokenLossTest, GradientsAreThoseOfFiniteDifferences) {
  const LossCase& item = GetParam();
  Bench bench;
  const auto leaf = [&](Shape shape, uint64_t seed) {
    return random_tensor(bench.context, shape, seed).set_requires_grad(true);
  };
  const std::vector<Tensor> inputs = {leaf({item.rows, item.hidden}, 1),
                                      leaf({item.vocabulary, item.hidden}, 2)};
  testing::expect_gradients(bench.context, inputs, [&](Context& cx, Inputs x) {
    return linear_cross_entropy_sum(cx, x[0], x[1], labels_of(cx, item), item.loss);
  });
  testing::expect_gradients(bench.context, {leaf({item.rows, item.vocabulary}, 3)},
                            [&](Context& cx, Inputs x) {
                              return cross_entropy_sum(cx, x[0], labels_of(cx, item), item.loss);
                            });
}

// log softmax by its definition in double.
TEST_P(TokenLossTest, IsItsDefinition) {
  const LossCase& item = GetParam();
  Bench bench;
  const Tensor logits = random_tensor(bench.context, {item.rows, item.vocabulary}, 3, 3);
  const Tensor labels = labels_of(bench.context, item);
  double expected = 0;
  for (int64_t row = 0; row < item.rows; ++row) {
    const int64_t label = labels.data<int64_t>()[row];
    if (label == item.loss.ignore_index) continue;
    const double* x = logits.data<double>() + row * item.vocabulary;
    double sum = 0, even = 0;
    for (int64_t i = 0; i < item.vocabulary; ++i) sum += std::exp(x[i]);
    for (int64_t i = 0; i < item.vocabulary; ++i) {
      even -= (x[i] - std::log(sum)) / static_cast<double>(item.vocabulary);
    }
    expected += (1 - item.loss.smoothing) * (std::log(sum) - x[label]);
    expected += item.loss.smoothing * even;
  }
  const Tensor loss = cross_entropy_sum(bench.context, logits, labels, item.loss);
  EXPECT_NEAR(*loss.data<double>(), expected, 1e-12 * (1 + expected));
}

INSTANTIATE_TEST_SUITE_P(All, TokenLossTest, ::testing::ValuesIn(loss_cases()),
                         [](const auto& item) { return item.param.name; });

// Several chunks: the loss, both gradients, and the most memory at any time, which a chunk of the
// logits bounds and not the logits.
TEST(LinearCrossEntropy, NeverHoldsTheLogits) {
  const LossCase item{"large", 2560, 6, 30011, {.smoothing = 0.05, .seed = 1.0 / 1024}};
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  Tensor x = random_tensor<float>(cx, {item.rows, item.hidden}, 1);
  Tensor table = random_tensor<float>(cx, {item.vocabulary, item.hidden}, 2);
  x.set_requires_grad(true);
  table.set_requires_grad(true);
  const Tensor labels = labels_of(cx, item);
  const Tensor seed = Tensor::full(cx.allocator, {}, item.loss.seed);
  const auto run = [&](auto&& f) {
    bench.allocator->reset_peak();
    const int64_t before = bench.allocator->stats().live_bytes;
    const Tensor loss = f(cx, item.loss);
    cx.tape->backward(cx, loss, seed);
    const int64_t peak = bench.allocator->stats().peak_bytes - before;
    std::vector<Tensor> results = {loss, x.grad(), table.grad()};
    x.set_grad(Tensor());
    table.set_grad(Tensor());
    return std::pair(results, peak);
  };
  const auto [expected, whole_peak] = run([&](Context& c, const TokenLoss& loss) {
    return cross_entropy_sum(c, linear(c, x, table, Tensor(), WeightLayout::kOutIn), labels, loss);
  });
  const auto [actual, peak] = run([&](Context& c, const TokenLoss& loss) {
    return linear_cross_entropy_sum(c, x, table, labels, loss);
  });
  for (size_t i = 0; i < expected.size(); ++i) {
    double largest = 0, off = 0;
    for (int64_t e = 0; e < expected[i].elements(); ++e) {
      const double wanted = static_cast<double>(expected[i].data<float>()[e]);
      largest = std::max(largest, std::abs(wanted));
      off = std::max(off, std::abs(static_cast<double>(actual[i].data<float>()[e]) - wanted));
    }
    EXPECT_LE(off, 3e-6 * largest) << "result " << i;
  }
  const int64_t logits = item.rows * item.vocabulary * 4, chunk = int64_t{1} << 27;
  const int64_t gradients = (item.rows + item.vocabulary) * item.hidden * 4;
  EXPECT_GE(whole_peak, 2 * logits);
  EXPECT_LE(peak, chunk + gradients + (int64_t{1} << 20));
  EXPECT_LT(peak, logits / 2);
}

// Rows whose label is ignored are not multiplied: neither forwards nor backwards.
TEST(LinearCrossEntropy, IgnoredRowsCostNothing) {
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  const int64_t rows = 60, hidden = 8, vocabulary = 50, every = 6;
  Tensor x = random_tensor(cx, {rows, hidden}, 1).set_requires_grad(true);
  Tensor table = random_tensor(cx, {vocabulary, hidden}, 2).set_requires_grad(true);
  Tensor labels = Tensor::empty(cx.allocator, {rows}, DType::kI64);
  for (int64_t i = 0; i < rows; ++i) {
    labels.data<int64_t>()[i] = i % every == 0 ? i % vocabulary : -100;
  }
  const int64_t before = cpu::multiplied();
  const Tensor loss = linear_cross_entropy_sum(cx, x, table, labels);
  cx.tape->backward(cx, loss, Tensor::full(cx.allocator, {}, 1, DType::kF64));
  EXPECT_EQ(cpu::multiplied() - before, 3 * 2 * (rows / every) * hidden * vocabulary);
  for (int64_t i = 0; i < rows * hidden; ++i) {
    EXPECT_EQ(x.grad().data<double>()[i] == 0, i / hidden % every != 0) << i;
  }
}

// bf16 operands: as near to float64 as the composition of the same operands is.
TEST(LinearCrossEntropy, Bf16IsAsGoodAsItsComposition) {
  const LossCase item{"", 50, 16, 300, {.smoothing = 0.1, .seed = 0.02}};
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  const Tensor labels = labels_of(cx, item);
  const auto run = [&](DType dtype, bool fused) {
    std::vector<Tensor> leaves;
    for (const int64_t rows : {item.rows, item.vocabulary}) {
      const Tensor x = random_tensor(bench.context, {rows, item.hidden}, 1 + leaves.size());
      const Tensor narrow = cast(bench.context, x, DType::kBF16);
      leaves.push_back(cast(bench.context, narrow, dtype).set_requires_grad(true));
    }
    const Tensor loss =
        fused ? linear_cross_entropy_sum(cx, leaves[0], leaves[1], labels, item.loss)
              : cross_entropy_sum(cx,
                                  linear(cx, leaves[0], leaves[1], Tensor(), WeightLayout::kOutIn),
                                  labels, item.loss);
    cx.tape->backward(cx, loss, Tensor::full(cx.allocator, {}, item.loss.seed, loss.dtype()));
    std::vector<Tensor> results = {loss, leaves[0].grad(), leaves[1].grad()};
    for (Tensor& x : results) x = cast(bench.context, x.detach(), DType::kF64);
    return results;
  };
  const auto exact = run(DType::kF64, false), naive = run(DType::kBF16, false);
  const auto actual = run(DType::kBF16, true);
  for (size_t i = 0; i < exact.size(); ++i) {
    double allowed = 1e-6, off = 0;
    for (int64_t e = 0; e < exact[i].elements(); ++e) {
      const double wanted = exact[i].data<double>()[e];
      allowed = std::max(allowed, 1.5 * std::abs(naive[i].data<double>()[e] - wanted));
      off = std::max(off, std::abs(actual[i].data<double>()[e] - wanted));
    }
    EXPECT_LE(off, allowed) << "result " << i;
  }
}

// What was computed for one seed serves another.
TEST(LinearCrossEntropy, AnotherSeedScalesTheGradients) {
  const LossCase item{"", 6, 5, 11, {.seed = 0.5}};
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  Tensor x = random_tensor(cx, {item.rows, item.hidden}, 1).set_requires_grad(true);
  Tensor table = random_tensor(cx, {item.vocabulary, item.hidden}, 2).set_requires_grad(true);
  std::vector<std::vector<double>> grads;
  for (const double seed : {0.5, 1.5}) {
    const Tensor loss = linear_cross_entropy_sum(cx, x, table, labels_of(cx, item), item.loss);
    cx.tape->backward(cx, loss, Tensor::full(cx.allocator, {}, seed, DType::kF64));
    grads.push_back(x.grad().to_vector<double>());
    x.set_grad(Tensor());
  }
  for (size_t i = 0; i < grads[0].size(); ++i) EXPECT_NEAR(grads[1][i], 3 * grads[0][i], 1e-14);
}

TEST(LinearCrossEntropy, BlocksAreTheComposition) {
  const LossCase item{"", 9, 5, 11, {}};
  Bench bench;
  Context cx = bench.context;
  cx.block_count = 4;
  const Tensor x = random_tensor(cx, {item.rows, item.hidden}, 1);
  const Tensor table = random_tensor(cx, {item.vocabulary, item.hidden}, 2),
               labels = labels_of(cx, item);
  const Tensor logits = linear(cx, x, table, Tensor(), WeightLayout::kOutIn);
  EXPECT_EQ(*linear_cross_entropy_sum(cx, x, table, labels).data<double>(),
            *cross_entropy_sum(cx, logits, labels).data<double>());
}

TEST(LinearCrossEntropy, LabelOutsideIsAnError) {
  Bench bench;
  const Tensor x = random_tensor(bench.context, {1, 2}, 1),
               table = random_tensor(bench.context, {3, 2}, 2);
  for (const int64_t wrong : {int64_t{3}, int64_t{-1}}) {
    EXPECT_THROW(linear_cross_entropy_sum(bench.context, x, table,
                                          testing::ids(bench.context, {1}, {wrong})),
                 StatusError);
  }
}

}  // namespace
}  // namespace weft::ops
