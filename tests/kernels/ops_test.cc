// Every op's gradient against finite differences, one table; each case also runs in float32 and is
// held against float64.
#include "kernels/ops/ops.h"

#include "tests/testing/gradient_check.h"

namespace weft::ops {
namespace {

using testing::Bench;
using testing::Function;
using testing::random_tensor;
using Inputs = std::span<const Tensor>;

struct Case {
  std::string name;
  std::vector<Shape> inputs;  // float64, each needs a gradient
  Function f;
  double positive_from = 0;  // > 0: inputs are made |x| + this
};

Tensor swapped(Context& cx, const Tensor& x) {
  const std::vector<int> order =
      x.shape().dims() == 2 ? std::vector<int>{1, 0} : std::vector<int>{0, 2, 1};
  return permute(cx, x, order);
}

Function unary(Activation kind) {
  return [kind](Context& cx, Inputs x) { return activate(cx, x[0], kind); };
}

std::vector<Case> arithmetic_cases() {
  const Function plus = [](Context& cx, Inputs x) { return add(cx, x[0], x[1]); };
  const Function minus = [](Context& cx, Inputs x) { return subtract(cx, x[0], x[1]); };
  const Function times = [](Context& cx, Inputs x) { return multiply(cx, x[0], x[1]); };
  const Function over = [](Context& cx, Inputs x) { return divide(cx, x[0], x[1]); };
  return {
      {"add", {{3, 5}, {3, 5}}, plus},
      {"add_row", {{3, 5}, {5}}, plus},
      {"add_column", {{3, 5}, {3, 1}}, plus},
      {"add_outer", {{7, 1}, {1, 3}}, plus},
      {"add_scalar", {{2, 3}, {}}, plus},
      {"add_middle", {{2, 3, 4}, {2, 1, 4}}, plus},
      {"add_inner_and_outer", {{2, 3, 4}, {1, 3, 1}}, plus},
      {"add_empty", {{0, 5}, {5}}, plus},
      {"subtract_broadcast", {{5}, {3, 5}}, minus},
      {"multiply", {{13}, {13}}, times},
      {"multiply_broadcast", {{2, 1, 3}, {4, 1}}, times},
      {"multiply_self", {{7}}, [](Context& cx, Inputs x) { return multiply(cx, x[0], x[0]); }},
      {"divide", {{3, 4}, {4}}, over, 0.5},
      {"divide_scalar", {{}, {3, 4}}, over, 0.5},
      {"scale", {{11}}, [](Context& cx, Inputs x) { return scale(cx, x[0], -1.5); }},
      {"add_transposed",
       {{3, 5}, {5, 3}},
       [](Context& cx, Inputs x) { return add(cx, x[0], swapped(cx, x[1])); }},
  };
}

std::vector<Case> activation_cases() {
  return {{"gelu_tanh", {{37}}, unary(Activation::kGeluTanh)},
          {"gelu_erf", {{37}}, unary(Activation::kGeluErf)},
          {"relu", {{37}}, unary(Activation::kRelu)},
          {"silu", {{37}}, unary(Activation::kSilu)},
          {"tanh", {{3, 5}}, unary(Activation::kTanh)},
          {"sigmoid", {{1}}, unary(Activation::kSigmoid)},
          {"gelu_of_transposed", {{3, 5}}, [](Context& cx, Inputs x) {
             return activate(cx, swapped(cx, x[0]), Activation::kGeluTanh);
           }}};
}

std::vector<Case> reduction_cases() {
  std::vector<Case> cases;
  for (int dim = -1; dim < 2; ++dim) {
    const std::string suffix = dim < 0 ? "last" : std::to_string(dim);
    cases.push_back({"sum_" + suffix, {{3, 5, 2}}, [dim](Context& cx, Inputs x) {
                       return sum(cx, x[0], dim);
                     }});
    cases.push_back({"mean_keep_" + suffix, {{3, 5, 2}}, [dim](Context& cx, Inputs x) {
                       return mean(cx, x[0], dim, true);
                     }});
  }
  cases.push_back({"sum_long", {{101, 3}}, [](Context& cx, Inputs x) { return sum(cx, x[0], 0); }});
  cases.push_back({"sum_all", {{3, 7}}, [](Context& cx, Inputs x) { return sum_all(cx, x[0]); }});
  cases.push_back({"sum_of_transposed", {{3, 7}}, [](Context& cx, Inputs x) {
                     return sum(cx, swapped(cx, x[0]), 1);
                   }});
  cases.push_back({"sum_in_blocks", {{11, 3}}, [](Context& cx, Inputs x) {
                     Context blocks = cx;
                     blocks.block_count = 4;
                     return sum(blocks, x[0], 0);
                   }});
  return cases;
}

std::vector<Case> shape_cases() {
  return {
      {"reshape",
       {{3, 4}},
       [](Context& cx, Inputs x) {
         return reshape(cx, x[0], Shape{2, 6});
       }},
      {"reshape_transposed",
       {{3, 4}},
       [](Context& cx, Inputs x) {
         return reshape(cx, swapped(cx, x[0]), Shape{2, 6});
       }},
      {"permute",
       {{2, 3, 4}},
       [](Context& cx, Inputs x) {
         const std::vector<int> order = {2, 0, 1};
         return permute(cx, x[0], order);
       }},
      {"slice", {{5, 3}}, [](Context& cx, Inputs x) { return slice(cx, x[0], 0, 1, 3); }},
      {"slice_twice",
       {{5, 3}},
       [](Context& cx, Inputs x) {
         return add(cx, slice(cx, x[0], -1, 0, 2), slice(cx, x[0], 1, 1, 2));
       }},
      {"slice_of_nothing",
       {{5, 3}},
       [](Context& cx, Inputs x) { return slice(cx, x[0], 0, 2, 0); }},
      {"split",
       {{2, 7}},
       [](Context& cx, Inputs x) {
         const std::vector<int64_t> lengths = {3, 3, 1};
         const std::vector<Tensor> parts = split(cx, x[0], 1, lengths);
         return multiply(cx, parts[0], parts[1]);  // the third part gets no gradient: zeros
       }},
      {"concat", {{2, 3}, {2, 1}, {2, 2}}, [](Context& cx, Inputs x) { return concat(cx, x, 1); }},
      {"concat_same",
       {{2, 3}},
       [](Context& cx, Inputs x) {
         const std::vector<Tensor> twice = {x[0], x[0]};
         return concat(cx, twice, 0);
       }},
      {"pad", {{2, 3}}, [](Context& cx, Inputs x) { return pad(cx, x[0], 1, 2, 1); }},
      {"contiguous",
       {{2, 3}},
       [](Context& cx, Inputs x) { return contiguous(cx, swapped(cx, x[0])); }},
  };
}

std::vector<Case> product_cases() {
  const Function product = [](Context& cx, Inputs x) { return matmul(cx, x[0], x[1]); };
  const auto layer = [](WeightLayout layout) {
    return [layout](Context& cx, Inputs x) {
      return linear(cx, x[0], x[1], x.size() > 2 ? x[2] : Tensor(), layout);
    };
  };
  return {
      {"matmul", {{3, 5}, {5, 2}}, product},
      {"matmul_one", {{1, 1}, {1, 1}}, product},
      {"matmul_inner_zero", {{3, 0}, {0, 2}}, product},
      {"matmul_inner_zero_shared", {{2, 3, 0}, {0, 2}}, product},
      {"matmul_batch", {{2, 3, 5}, {2, 5, 7}}, product},
      {"matmul_many", {{2, 3, 1, 5}, {2, 3, 5, 2}}, product},
      {"matmul_shared_right", {{2, 3, 5}, {5, 7}}, product},
      {"matmul_shared_left", {{3, 5}, {4, 5, 2}}, product},
      {"matmul_broadcast", {{2, 1, 3, 5}, {3, 5, 2}}, product},
      {"matmul_transposed",
       {{5, 3}, {7, 5}},
       [](Context& cx, Inputs x) { return matmul(cx, swapped(cx, x[0]), swapped(cx, x[1])); }},
      {"matmul_sliced",
       {{4, 7}, {9, 3}},
       [](Context& cx, Inputs x) {
         return matmul(cx, slice(cx, x[0], 1, 1, 5), slice(cx, x[1], 0, 2, 5));
       }},
      {"matmul_in_blocks",
       {{3, 11}, {11, 2}},
       [](Context& cx, Inputs x) {
         Context blocks = cx;
         blocks.block_count = 4;
         return matmul(blocks, x[0], x[1]);
       }},
      {"linear_out_in", {{2, 3, 5}, {7, 5}, {7}}, layer(WeightLayout::kOutIn)},
      {"linear_in_out", {{3, 5}, {5, 7}, {7}}, layer(WeightLayout::kInOut)},
      {"linear_no_bias", {{3, 5}, {5, 1}}, layer(WeightLayout::kInOut)},
      {"linear_no_rows", {{0, 5}, {5, 2}, {2}}, layer(WeightLayout::kInOut)},
      {"linear_no_inputs", {{2, 3, 0}, {0, 4}, {4}}, layer(WeightLayout::kInOut)},
      {"linear_of_transposed",
       {{5, 3}, {2, 5}, {2}},
       [](Context& cx, Inputs x) {
         return linear(cx, swapped(cx, x[0]), x[1], x[2], WeightLayout::kOutIn);
       }},
  };
}

std::vector<Case> model_cases() {
  return {
      {"embedding",
       {{5, 3}},
       [](Context& cx, Inputs x) {
         // Ids 1 and 9 lie outside [2, 7); 4 comes twice.
         return embedding(cx, testing::ids(cx, {2, 3}, {4, 1, 2, 9, 4, 6}), x[0], 2);
       }},
      {"gather_rows",
       {{3, 4, 2}},
       [](Context& cx, Inputs x) {
         return gather_rows(cx, x[0], testing::ids(cx, {3}, {3, -1, 0}));
       }},
      {"layer_norm",
       {{2, 3, 7}, {7}, {7}},
       [](Context& cx, Inputs x) { return layer_norm(cx, x[0], x[1], x[2], 1e-5); }},
      {"layer_norm_no_rows",
       {{0, 7}, {7}, {7}},
       [](Context& cx, Inputs x) { return layer_norm(cx, x[0], x[1], x[2], 1e-5); }},
      {"layer_norm_many_rows",
       {{131, 2}, {2}, {2}},
       [](Context& cx, Inputs x) { return layer_norm(cx, x[0], x[1], x[2], 1e-1); }},
      {"layer_norm_of_transposed",
       {{7, 2}, {7}, {7}},
       [](Context& cx, Inputs x) { return layer_norm(cx, swapped(cx, x[0]), x[1], x[2], 1e-5); }},
      {"softmax", {{3, 7}}, [](Context& cx, Inputs x) { return softmax(cx, x[0], -1); }},
      {"softmax_middle", {{3, 5, 2}}, [](Context& cx, Inputs x) { return softmax(cx, x[0], 1); }},
      {"cross_entropy",
       {{2, 3, 5}},
       [](Context& cx, Inputs x) {
         return cross_entropy_sum(cx, x[0], testing::ids(cx, {2, 3}, {0, 4, -100, 2, 2, 1}));
       }},
      {"cross_entropy_one_class",
       {{2, 1}},
       [](Context& cx, Inputs x) {
         return cross_entropy_sum(cx, x[0], testing::ids(cx, {2}, {0, 0}));
       }},
      {"dropout",
       {{3, 5}},
       [](Context& cx, Inputs x) {
         return dropout(cx, x[0], 0.4, {1, 2}, {Shape{3, 9}, {0, 2}});
       }},
  };
}

std::vector<Case> all_cases() {
  std::vector<Case> all;
  for (const auto& part : {arithmetic_cases(), activation_cases(), reduction_cases(), shape_cases(),
                           product_cases(), model_cases()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

std::vector<Tensor> inputs_of(Context& cx, const Case& item) {
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < item.inputs.size(); ++i) {
    Tensor x = random_tensor(cx, item.inputs[i], 11 + i);
    for (int64_t e = 0; e < x.elements() && item.positive_from > 0; ++e) {
      x.data<double>()[e] = std::abs(x.data<double>()[e]) + item.positive_from;
    }
    inputs.push_back(x.set_requires_grad(true));
  }
  return inputs;
}

class OpTest : public ::testing::TestWithParam<Case> {};

TEST_P(OpTest, GradientIsThatOfFiniteDifferences) {
  Bench bench;
  testing::expect_gradients(bench.context, inputs_of(bench.context, GetParam()), GetParam().f);
}

TEST_P(OpTest, Float32FollowsFloat64) {
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  std::vector<Tensor> wide = inputs_of(cx, GetParam()), narrow;
  for (const Tensor& x : wide) {
    narrow.push_back(cast(bench.context, x.detach(), DType::kF32).set_requires_grad(true));
  }
  const Tensor expected = GetParam().f(cx, wide);
  cx.tape->backward(cx, expected);
  const Tensor actual = GetParam().f(cx, narrow);
  EXPECT_EQ(actual.dtype(), DType::kF32);
  cx.tape->backward(cx, actual);
  testing::expect_close(actual, expected.to_vector<double>(), 1e-6);
  for (size_t i = 0; i < wide.size(); ++i) {
    if (!wide[i].grad()) continue;
    ASSERT_TRUE(narrow[i].grad());
    testing::expect_close(narrow[i].grad(), wide[i].grad().to_vector<double>(), 2e-6);
  }
}

TEST_P(OpTest, RepeatsBitForBitOnOneAndOnThreeThreads) {
  std::vector<std::vector<double>> seen;
  for (const int threads : {1, 3, 3}) {
    Bench bench(threads);
    const Tensor y = GetParam().f(bench.context, inputs_of(bench.context, GetParam()));
    seen.push_back(y.to_vector<double>());
  }
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_EQ(seen[1], seen[2]);
}

INSTANTIATE_TEST_SUITE_P(All, OpTest, ::testing::ValuesIn(all_cases()),
                         [](const auto& item) { return item.param.name; });

}  // namespace
}  // namespace weft::ops
