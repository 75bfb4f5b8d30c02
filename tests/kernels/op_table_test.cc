// Every row of the case table on the CPU: gradients against finite differences, every layout of the
// inputs, float32 and bf16 against float64, fused ops against their compositions, and
// repeatability.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "kernels/ops/random.h"
#include "tests/kernels/op_table/run.h"

namespace weft::op_table {
namespace {

constexpr size_t kShapesMin = 12;
// Of an input's elements these many are checked one by one; a random direction checks them all.
constexpr int64_t kElementsMax = 48, kElementsOfLarge = 4, kLarge = 1000;
constexpr double kSmall = 0.1;  // inputs and cotangents are of order 1

class OpTable : public ::testing::TestWithParam<Row> {};

// Outputs, then gradients (a missing one is empty), each as doubles.
std::vector<std::vector<double>> all_values(Context& cx, const Outcome& outcome) {
  std::vector<std::vector<double>> values;
  for (const Tensor& x : outcome.outputs) values.push_back(values_of(cx, x));
  for (const Tensor& x : outcome.gradients) {
    values.push_back(x ? values_of(cx, x) : std::vector<double>());
  }
  return values;
}

std::string part_name(const Outcome& outcome, size_t part) {
  const size_t outputs = outcome.outputs.size();
  return part < outputs ? "output " + std::to_string(part)
                        : "gradient of input " + std::to_string(part - outputs);
}

void expect_same(Context& cx, const Outcome& actual, const Outcome& expected, double tolerance) {
  const auto got = all_values(cx, actual), want = all_values(cx, expected);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_LE(difference(got[i], want[i]), tolerance * (1 + largest_of(want[i])))
        << part_name(expected, i);
  }
}

TEST_P(OpTable, HasEnoughShapes) {
  const Row& row = GetParam();
  std::set<std::string> shapes;
  bool empty = false, one = false, odd = false;
  for (const Case& item : row.cases) {
    shapes.insert(Case{item.inputs, {}}.to_string());
    for (const Input& input : item.inputs) {
      const int64_t elements = input.shape.elements();
      empty |= elements == 0;
      one |= elements == 1;
      odd |= elements > 4 && elements % 2 == 1;
    }
  }
  EXPECT_GE(shapes.size(), kShapesMin);
  EXPECT_TRUE(empty) << "no empty input";
  EXPECT_TRUE(one) << "no input of one element";
  EXPECT_TRUE(odd) << "no input of an odd number of elements";
}

// d(weighted)/d(inputs[input]) along `direction`, by central differences.
double slope(const Bench& bench, Function f, const Case& item, std::vector<Tensor> inputs,
             size_t input, const std::vector<double>& direction) {
  constexpr double kStep = 1e-5;
  const std::vector<double> start = inputs[input].to_vector<double>();
  double values[2];
  for (const int side : {0, 1}) {
    std::vector<double> moved = start;
    for (size_t i = 0; i < moved.size(); ++i) moved[i] += (side ? kStep : -kStep) * direction[i];
    inputs[input] = Tensor::from<double>(*bench.allocator, inputs[input].shape(), moved);
    values[side] = weighted(bench, item, f, inputs);
  }
  return (values[1] - values[0]) / (2 * kStep);
}

void expect_gradients(const Bench& bench, const Row& row, const Case& item) {
  Context cx = bench.context;
  const Function f = row.whole != nullptr ? row.whole : row.f;
  const std::vector<Tensor> inputs = draw(cx, item);
  const Outcome outcome = run(bench, item, f, inputs);
  int64_t results = 0;
  for (const Tensor& output : outcome.outputs) results += output.elements();
  for (size_t i = 0; i < inputs.size(); ++i) {
    const int64_t elements = inputs[i].elements();
    if (!item.inputs[i].gradient || elements == 0) continue;
    if (!outcome.gradients[i]) {
      EXPECT_EQ(results, 0) << "input " << i << " got no gradient";
      continue;
    }
    EXPECT_EQ(outcome.gradients[i].shape(), inputs[i].shape());
    const std::vector<double> gradient = outcome.gradients[i].to_vector<double>();
    std::vector<double> direction(gradient.size());
    double along = 0, size = 0;
    for (size_t e = 0; e < direction.size(); ++e) {
      direction[e] = normal_at({77 + i, 1}, e);
      along += direction[e] * gradient[e];
      size += std::abs(direction[e] * gradient[e]);
    }
    EXPECT_NEAR(along, slope(bench, f, item, inputs, i, direction), 2e-7 * (1 + size))
        << "input " << i;
    const double tolerance = 2e-7 * (1 + largest_of(gradient));
    const int64_t checked = elements > kLarge ? kElementsOfLarge : std::min(elements, kElementsMax);
    for (int64_t k = 0; k < checked; ++k) {
      const size_t e = static_cast<size_t>(elements <= kElementsMax ? k : k * 7919 % elements);
      std::fill(direction.begin(), direction.end(), 0);
      direction[e] = 1;
      EXPECT_NEAR(gradient[e], slope(bench, f, item, inputs, i, direction), tolerance)
          << "input " << i << " element " << e;
    }
  }
}

TEST_P(OpTable, GradientsAreThoseOfFiniteDifferences) {
  if (!GetParam().differentiable) return;
  const Bench bench;
  for (const Case& item : GetParam().cases) {
    SCOPED_TRACE(item.to_string());
    expect_gradients(bench, GetParam(), item);
    if (HasFailure()) return;
  }
}

// How far a row's results in `dtype` may be off beside the error of its composition, relative to
// the largest element.
double bar_of(const Row& row, DType dtype) {
  if (dtype == DType::kF64) return 1e-13;
  return dtype == DType::kF32 ? row.ulps * 0x1p-23 : row.half_ulps * 0x1p-7;
}

// Sums may be taken in another order: both may be off.
void expect_layouts_not_to_matter(const Row& row, DType dtype) {
  const Bench bench;
  Context cx = bench.context;
  for (const Case& item : row.cases) {
    const std::vector<Tensor> drawn = in_dtype(cx, draw(cx, item), dtype);
    const std::vector<Tensor> repeated = expanded_values(cx, item, drawn);
    const Outcome plain = run(bench, item, row.f, drawn);
    const Outcome plain_repeated = run(bench, item, row.f, repeated);
    for (const Layout layout : kLayouts) {
      SCOPED_TRACE(item.to_string() + name_of(layout) + " " + std::string(dtype_name(dtype)));
      const bool expanded = layout == Layout::kExpanded;
      std::vector<Tensor> inputs;
      for (size_t i = 0; i < drawn.size(); ++i) {
        const bool stays = expanded && item.inputs[i].draw == Draw::kGiven;
        inputs.push_back(stays ? drawn[i] : lay_out(cx, expanded ? repeated[i] : drawn[i], layout));
      }
      expect_same(cx, run(bench, item, row.f, inputs), expanded ? plain_repeated : plain,
                  dtype == DType::kF64 ? bar_of(row, dtype) : 2 * bar_of(row, dtype));
    }
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_P(OpTable, LayoutsDoNotMatter) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    expect_layouts_not_to_matter(GetParam(), dtype);
    if (HasFailure()) return;
  }
}

// The error of an op in `dtype` is at most twice that of its plain composition in `dtype`, both
// against float64 with the same inputs; a few units in the last place of the largest element (or of
// kSmall) are always allowed.
void expect_precision(const Row& row, DType dtype) {
  const Bench bench;
  Context cx = bench.context;
  for (const Case& item : row.cases) {
    SCOPED_TRACE(item.to_string());
    const std::vector<Tensor> wide = draw(cx, item, dtype);
    const Outcome expected = run(bench, item, row.f, wide);
    const Outcome actual = run(bench, item, row.f, in_dtype(cx, wide, dtype));
    const auto want = all_values(cx, expected), got = all_values(cx, actual);
    std::vector<std::vector<double>> naive;
    if (row.composition != nullptr) {
      naive = all_values(cx, run(bench, item, row.composition, in_dtype(cx, wide, dtype)));
    }
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      const double floor = bar_of(row, dtype) * std::max(kSmall, largest_of(want[i]));
      const double bar = (naive.empty() ? 0 : 2 * difference(naive[i], want[i])) + floor;
      EXPECT_LE(difference(got[i], want[i]), bar) << part_name(expected, i);
    }
    for (const Tensor& output : actual.outputs) {
      const bool kept = is_half(dtype) && output.dtype() == DType::kF32;  // a loss is not rounded
      EXPECT_TRUE(!is_floating(output.dtype()) || output.dtype() == dtype || kept);
    }
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_P(OpTable, Float32FollowsFloat64) { expect_precision(GetParam(), DType::kF32); }

TEST_P(OpTable, Bf16FollowsFloat64) { expect_precision(GetParam(), DType::kBF16); }

TEST_P(OpTable, AgreesWithItsComposition) {
  const Row& row = GetParam();
  if (row.composition == nullptr) return;  // an elementary op
  const Bench bench;
  Context cx = bench.context;
  for (const Case& item : row.cases) {
    SCOPED_TRACE(item.to_string());
    const std::vector<Tensor> inputs = draw(cx, item);
    expect_same(cx, run(bench, item, row.f, inputs), run(bench, item, row.composition, inputs),
                1e-11);
    if (HasFailure()) return;
  }
}

TEST_P(OpTable, RepeatsBitForBitOnOneAndOnThreeThreads) {
  const Row& row = GetParam();
  const Bench one(1), three(3);
  for (const Case& item : row.cases) {
    SCOPED_TRACE(item.to_string());
    std::vector<std::vector<std::vector<double>>> seen;
    for (const Bench* bench : {&one, &three, &three}) {
      Context cx = bench->context;
      const std::vector<Tensor> inputs = in_dtype(cx, draw(cx, item), DType::kF32);
      seen.push_back(all_values(cx, run(*bench, item, row.f, inputs)));
    }
    EXPECT_TRUE(seen[0] == seen[1]);
    EXPECT_TRUE(seen[1] == seen[2]);
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(All, OpTable, ::testing::ValuesIn(rows()),
                         [](const auto& item) { return item.param.op; });

TEST(OpTableItself, NamesAreUnique) {
  std::set<std::string> names;
  for (const Row& row : rows()) EXPECT_TRUE(names.insert(row.op).second) << row.op;
}

}  // namespace
}  // namespace weft::op_table
