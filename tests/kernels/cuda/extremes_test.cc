// What the case table cannot draw: infinities, NaN where it does not count, rows that hold nothing.
// A GPU gives what the CPU does, output and gradients, in fp32 and in half types.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/cuda/device.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/segments.h"
#include "kernels/tensor/transfer.h"
#include "tests/kernels/op_table/run.h"

namespace weft::op_table {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
// Weights whose scores and their sum's logarithm are attention::kLeastScore have so many digits.
constexpr double kOfLeastScores = 0x1p-10;
constexpr double kLowest = std::numeric_limits<float>::lowest();

struct Extreme {
  std::string name;
  std::vector<std::pair<Shape, std::vector<double>>> inputs;
  std::function<Tensor(Context&, Inputs)> f;
  double slack = 0;    // of the largest, beside roundings
  bool alone = false;  // each element is computed for itself
};
void PrintTo(const Extreme& extreme, std::ostream* out) { *out << extreme.name; }

Tensor numbers(Context& cx, const std::vector<int64_t>& values) {
  return Tensor::from<int64_t>(cx.allocator, {std::ssize(values)}, values);
}

template <ops::Activation kKind>
Tensor activated(Context& cx, Inputs x) {
  return ops::activate(cx, x[0], kKind);
}

Tensor shares_of_segments(Context& cx, Inputs x) {
  return ops::segment_softmax(cx, x[0], numbers(cx, {0, 0, 1, 1, 3}), 4);
}

// Of two rows the first is ignored.
template <bool kOfTableAlone>
Tensor language_loss(Context& cx, Inputs x) {
  const Tensor input = kOfTableAlone ? x[0].detach() : x[0];
  return ops::linear_cross_entropy_sum(cx, input, x[1], numbers(cx, {-100, 1}));
}

Tensor biased_attention(Context& cx, Inputs x) {
  attention::Parameters p;
  p.bias = x[3];
  return attention::scaled_dot_product(cx, x[0], x[1], x[2], p);
}

std::vector<Extreme> extremes() {
  const Shape queries{1, 1, 2, 1}, keys{1, 1, 3, 1}, scores{1, 1, 2, 3};
  const std::vector<double> far{-kInfinity, -1e30, -200, 200, 1e30, kInfinity, kNan, 0, -0.5};
  const std::vector<double> q{1, -0.5}, k{0.5, 1, 2}, v{1, 2, 4};
  return {
      {"gelu_tanh", {{{9}, far}}, activated<ops::Activation::kGeluTanh>, 0, true},
      {"gelu_erf", {{{9}, far}}, activated<ops::Activation::kGeluErf>, 0, true},
      {"segments_without_shares",
       {{{5, 2}, {-kInfinity, -kInfinity, -kInfinity, 2, 200, -kInfinity, 1, -kInfinity, 3, 3}}},
       shares_of_segments},
      {"ignored_nan",
       {{{2, 2}, {kNan, kNan, 3, 4}}, {{3, 2}, {1, 1, 2, 2, 0.5, 0.25}}},
       language_loss<false>},
      {"ignored_nan_of_the_table_alone",
       {{{2, 2}, {kNan, kNan, 3, 4}}, {{3, 2}, {1, 1, 2, 2, 0.5, 0.25}}},
       language_loss<true>},
      {"row_masked_by_the_lowest",
       {{queries, q}, {keys, k}, {keys, v}, {scores, {kLowest, kLowest, kLowest, 0, kLowest, 1}}},
       biased_attention,
       kOfLeastScores},
      {"row_masked_by_much",
       {{queries, q}, {keys, k}, {keys, v}, {scores, {-1e9, -1e9, -1e9, 0, -1e9, 1}}},
       biased_attention,
       kOfLeastScores},
      {"row_masked_by_infinity",
       {{queries, q},
        {keys, k},
        {keys, v},
        {scores, {-kInfinity, -kInfinity, -kInfinity, 0, -kInfinity, 1}}},
       biased_attention},
  };
}

class Extremes : public ::testing::TestWithParam<Extreme> {
 protected:
  // The output, then the inputs' gradients under one of ones; absent ones are empty.
  std::vector<std::vector<double>> results(const Bench& bench, DType dtype) {
    Context cx = bench.context;
    Tape tape;
    Context recording = cx;
    recording.tape = &tape;
    std::vector<Tensor> inputs;
    Context here = cpu_.context;
    for (const auto& [shape, values] : GetParam().inputs) {
      const Tensor x = ops::cast(here, Tensor::from<double>(here.allocator, shape, values), dtype);
      inputs.push_back(to_allocator(x.detach(), cx.allocator));
      inputs.back().set_requires_grad(true);
    }
    const Tensor y = GetParam().f(recording, inputs);
    tape.backward(cx, y, Tensor::full(cx.allocator, y.shape(), 1, y.dtype()));
    std::vector<std::vector<double>> all{values_of(cx, y)};
    for (Tensor& x : inputs) {
      all.push_back(x.grad() ? values_of(cx, x.grad()) : std::vector<double>());
      x.set_grad(Tensor());
    }
    return all;
  }
  const Bench cpu_{1};
};

TEST_P(Extremes, AreAsOnTheCpu) {
  auto memory = cuda::make_allocator(0);
  ASSERT_TRUE(memory) << memory.error().to_string();
  const Bench gpu(1, std::move(*memory));
  for (const auto& [dtype, epsilon] :
       {std::pair{DType::kF32, 0x1p-23}, {DType::kBF16, 0x1p-8}, {DType::kF16, 0x1p-11}}) {
    const auto want = results(cpu_, dtype), got = results(gpu, dtype);
    for (size_t i = 0; i < want.size(); ++i) {
      const double bar = (8 * epsilon + GetParam().slack) * std::max(1.0, largest_of(want[i]));
      EXPECT_LE(difference(got[i], want[i]), bar)
          << dtype_name(dtype) << " part " << i << ::testing::PrintToString(got[i]) << " not "
          << ::testing::PrintToString(want[i]);
      for (size_t k = 0; GetParam().alone && k < want[i].size(); ++k) {
        EXPECT_LE(difference({got[i][k]}, {want[i][k]}),
                  8 * epsilon * std::max(1.0, largest_of({want[i][k]})))
            << dtype_name(dtype) << " part " << i << " element " << k;
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, Extremes, ::testing::ValuesIn(extremes()),
                         [](const auto& item) { return item.param.name; });

}  // namespace
}  // namespace weft::op_table
