// GELU, SiLU and SwiGLU of bf16 and their slopes at each of its 65,536 values, against double, at
// every level that this processor has: on AVX-512 they are functions of their own, which are only
// as exact as bf16 tells.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/level.h"
#include "kernels/cpu/rows_levels.h"
#include "kernels/cpu/vectors_levels.h"

namespace weft::cpu {
namespace {

struct Tables {
  std::string name;
  const RowKernels<bfloat16>* rows;
  const VectorKernels<bfloat16>* vectors;
};
std::vector<Tables> tables() {
  std::vector<Tables> all{{"v2", &rows_bf16_v2, &vectors_bf16_v2}};
  if (supported(Level::kV3)) all.push_back({"v3", &rows_bf16_v3, &vectors_bf16_v3});
  if (supported(Level::kV4)) all.push_back({"v4", &rows_bf16_v4, &vectors_bf16_v4});
  if (supported(Level::kBf16)) {
    all.push_back({"bf16", &rows_bf16_avx512bf16, &vectors_bf16_avx512bf16});
  }
  return all;
}
class HalfCurves : public ::testing::TestWithParam<Tables> {};

using Halves = std::vector<bfloat16>;
constexpr int64_t kAll = 65536;
Halves every_value() {
  Halves all(kAll);
  for (size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<uint16_t>(i);
  return all;
}

double unit_of(
    double value) {  // of bf16's last place; of numbers below the normal ones the least's
  constexpr double kLeast = std::numeric_limits<float>::min();
  return std::ldexp(1.0, std::ilogb(std::max(std::abs(value), kLeast)) - 7);
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double silu(double x) { return x * sigmoid(x); }
double silu_slope(double x) { return sigmoid(x) + x * sigmoid(x) * sigmoid(-x); }
double normal(double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)); }
double gelu_erf(double x) { return x * normal(x); }
double gelu_erf_slope(double x) {
  return normal(x) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * std::acos(-1.0));
}
const double kTwoRoot = std::sqrt(8 / std::acos(-1.0));
double twice_inner(double x) { return kTwoRoot * (x + 0.044715 * x * x * x); }
double gelu_tanh(double x) { return x * sigmoid(twice_inner(x)); }
double gelu_tanh_slope(double x) {
  const double s = sigmoid(twice_inner(x)), other = sigmoid(-twice_inner(x));
  return s + x * s * other * kTwoRoot * (1 + 3 * 0.044715 * x * x);
}

// From `least` on, at most one unit off, or `lost` where that is more; seldom not the nearest one.
void expect_near(const Halves& got, double (*function)(double), double least, double lost,
                 const std::string& what) {
  const Halves x = every_value();
  // Below the normal numbers the instruction rounds to 0.
  const double flushed = std::numeric_limits<float>::min();
  int others = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double at = float{x[i]}, value = float{got[i]};
    if (std::isnan(at)) {
      EXPECT_TRUE(std::isnan(value)) << what << " of NaN " << i;
      continue;
    }
    if (at < least || std::isinf(at)) continue;
    const double want = function(at);
    ASSERT_LE(std::abs(value - want), unit_of(want) + lost + flushed)
        << what << " at " << at << ": " << value << ", not " << want;
    others += std::abs(value - want) > 0.5 * unit_of(want) + flushed;
  }
  EXPECT_LT(others, 300) << what;
}

float result_of(const Halves& results, float x) { return float{results[bfloat16(x).bits]}; }

TEST_P(HalfCurves, GeluIsWithinAUnit) {
  const Halves x = every_value(), ones(kAll, bfloat16(1.0F));
  const float infinite = std::numeric_limits<float>::infinity();
  const auto expect = [&](Curve curve, double (*value)(double), double (*slope)(double),
                          const std::string& name) {
    Halves y(kAll), dx(kAll);
    GetParam().rows->curve(curve, x.data(), y.data(), kAll);
    GetParam().rows->curve_backward(curve, x.data(), ones.data(), dx.data(), kAll);
    expect_near(y, value, -infinite, 0x1p-22, name);
    expect_near(dx, slope, -infinite, 0x1p-20, name + "'s slope");
    EXPECT_EQ(result_of(y, 0.0F), 0);
    EXPECT_EQ(result_of(y, -0.0F), 0);
    EXPECT_EQ(result_of(dx, 0.0F), 0.5F);
    EXPECT_EQ(result_of(dx, -0.0F), 0.5F);
    EXPECT_EQ(result_of(y, infinite), infinite);
    EXPECT_EQ(result_of(y, -infinite), 0);
    EXPECT_TRUE(std::signbit(result_of(y, -0.0F)));
    EXPECT_EQ(result_of(dx, -infinite), 0);
    EXPECT_EQ(result_of(dx, infinite), 1);
  };
  expect(Curve::kGeluErf, gelu_erf, gelu_erf_slope, "GELU by erf");
  expect(Curve::kGeluTanh, gelu_tanh, gelu_tanh_slope, "GELU by tanh");
}

TEST_P(HalfCurves, SiluIsWithinAUnit) {
  const Halves x = every_value(), ones(kAll, bfloat16(1.0F));
  constexpr double kLeast = -87;  // below, e^-x and what it is divided by leave the normal numbers
  const auto expect = [&](const Halves& got, double (*function)(double), const std::string& what) {
    expect_near(got, function, kLeast, 0, what);
    EXPECT_EQ(result_of(got, -1e38F), 0) << what;
  };
  Halves y(kAll), dx(kAll);
  GetParam().rows->curve(Curve::kSilu, x.data(), y.data(), kAll);
  expect(y, silu, "SiLU");
  EXPECT_EQ(result_of(y, 0.0F), 0);
  GetParam().rows->curve_backward(Curve::kSilu, x.data(), ones.data(), dx.data(), kAll);
  expect(dx, silu_slope, "SiLU's slope");
  EXPECT_EQ(result_of(dx, 0.0F), 0.5F);
  GetParam().vectors->swiglu(x.data(), ones.data(), y.data(), kAll);
  expect(y, silu, "SwiGLU");
  GetParam().vectors->swiglu_backward(x.data(), ones.data(), ones.data(), dx.data(), y.data(),
                                      kAll);
  expect(dx, silu_slope, "SwiGLU's gate's gradient");
  expect(y, silu, "SwiGLU's other gradient");
}

INSTANTIATE_TEST_SUITE_P(All, HalfCurves, ::testing::ValuesIn(tables()),
                         [](const auto& level) { return level.param.name; });

}  // namespace
}  // namespace weft::cpu
