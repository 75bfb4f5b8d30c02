// The loops of vectors.h at every level of x86-64 that this processor has: float against double,
// and the same values wherever a row is cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/vectors_levels.h"
#include "kernels/ops/random.h"
#include "tests/testing/keep_denormals.h"

namespace weft::cpu {
namespace {

struct Level {
  std::string name;
  const VectorKernels<float>* f32;
  const VectorKernels<double>* f64;
};

std::vector<Level> levels() {
  std::vector<Level> all = {{"v2", &vectors_f32_v2, &vectors_f64_v2}};
  if (__builtin_cpu_supports("x86-64-v3")) all.push_back({"v3", &vectors_f32_v3, &vectors_f64_v3});
  if (__builtin_cpu_supports("x86-64-v4")) all.push_back({"v4", &vectors_f32_v4, &vectors_f64_v4});
  return all;
}

class VectorLevels : public ::testing::TestWithParam<Level> {};

bool needs_positive(Unary kind) {
  return kind == Unary::kLog || kind == Unary::kSqrt || kind == Unary::kRsqrt ||
         kind == Unary::kPower;
}

// Values over many orders of magnitude, those of `kind`'s domain.
std::vector<float> points(Unary kind) {
  std::vector<float> all;
  for (int i = 0; i < 3001; ++i) {
    const double normal = normal_at({4, 2}, static_cast<uint64_t>(i));
    const double value = normal * std::pow(10.0, i % 5 - 3);
    all.push_back(static_cast<float>(needs_positive(kind) ? std::abs(value) + 1e-6 : value));
  }
  return all;
}

constexpr Unary kUnaries[] = {
    Unary::kNegate,    Unary::kAbs,    Unary::kExp,         Unary::kLog,       Unary::kSqrt,
    Unary::kRsqrt,     Unary::kSquare, Unary::kPower,       Unary::kClamp,     Unary::kSoftplus,
    Unary::kLeakyRelu, Unary::kElu,    Unary::kHardSigmoid, Unary::kHardSwish, Unary::kQuickGelu};

// Within 8 units in the last place of the value, or of 0.1.
void expect_near(const std::vector<float>& got, const std::vector<double>& want, Unary kind) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double bar = 8 * 0x1p-23 * std::max(0.1, std::abs(want[i]));
    ASSERT_NEAR(got[i], want[i], bar) << "function " << static_cast<int>(kind) << " element " << i;
  }
}

TEST_P(VectorLevels, FunctionsFollowDouble) {
  for (const Unary kind : kUnaries) {
    const std::vector<float> x = points(kind);
    const int64_t n = static_cast<int64_t>(x.size());
    const std::vector<double> wide(x.begin(), x.end()), ones(x.size(), 1.0);
    const std::vector<float> one(x.size(), 1.0F);
    std::vector<float> y(x.size()), slope(x.size());
    std::vector<double> want(x.size()), want_slope(x.size());
    GetParam().f32->unary(kind, 0.5F, 1.5F, x.data(), y.data(), n);
    GetParam().f64->unary(kind, 0.5, 1.5, wide.data(), want.data(), n);
    expect_near(y, want, kind);
    GetParam().f32->unary_backward(kind, 0.5F, 1.5F, x.data(), one.data(), slope.data(), n);
    GetParam().f64->unary_backward(kind, 0.5, 1.5, wide.data(), ones.data(), want_slope.data(), n);
    expect_near(slope, want_slope, kind);
  }
}

// Numbers of every size, the smallest among them, in units of the logarithm's last place: AVX-512
// has its own function, other levels the C library's, which promises 4.
TEST_P(VectorLevels, LogIsAccurate) {
  const testing::KeepDenormals kept;
  std::vector<float> x;
  for (uint32_t bits = 1; bits < 0x7F800000; bits += 10007) {
    x.push_back(std::bit_cast<float>(bits));
  }
  for (int i = -2000; i <= 2000; ++i) x.push_back(1 + static_cast<float>(i) * 0x1p-14F);
  std::vector<float> y(x.size());
  GetParam().f32->unary(Unary::kLog, 0, 0, x.data(), y.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = std::log(double{x[i]});
    const double unit = want == 0 ? 0 : std::ldexp(1.0, std::ilogb(want) - 23);
    ASSERT_NEAR(y[i], want, (GetParam().name == "v4" ? 1.5 : 4) * unit) << "of " << x[i];
  }
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float edges[] = {0, -0.0F, kInfinity, -1, -1e-40F, -kInfinity, NAN};
  const float logs[] = {-kInfinity, -kInfinity, kInfinity, NAN, NAN, NAN, NAN};
  std::vector<float> line(49), results(49);  // whole vectors of them, and a rest
  for (size_t i = 0; i < line.size(); ++i) line[i] = edges[i % 7];
  GetParam().f32->unary(Unary::kLog, 0, 0, line.data(), results.data(), 49);
  for (size_t i = 0; i < line.size(); ++i) {
    if (std::isnan(logs[i % 7])) {
      EXPECT_TRUE(std::isnan(results[i])) << "of " << line[i];
    } else {
      EXPECT_EQ(results[i], logs[i % 7]) << "of " << line[i];
    }
  }
}

// In units of its own last place: left of 0 it is e^x, whose digits 1 + e^x would drop.
TEST_P(VectorLevels, SoftplusIsAccurate) {
  std::vector<float> x;
  for (int i = -86000; i <= 88000; i += 3) x.push_back(static_cast<float>(i) * 0.001003F);
  std::vector<float> y(x.size());
  GetParam().f32->unary(Unary::kSoftplus, 0, 0, x.data(), y.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = std::max(0.0, double{x[i]}) + std::log1p(std::exp(-std::abs(double{x[i]})));
    if (want < std::numeric_limits<float>::min()) continue;
    ASSERT_NEAR(y[i] / want, 1, 4 * 0x1p-23) << "of " << x[i];
  }
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float edges[] = {-kInfinity, -1e30F, -104, 104, 1e30F, kInfinity, NAN};
  float of_edges[7];
  GetParam().f32->unary(Unary::kSoftplus, 0, 0, edges, of_edges, 7);
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(of_edges[i], 0, 1e-44) << edges[i];
  for (size_t i = 3; i < 6; ++i) EXPECT_EQ(of_edges[i], edges[i]);
  EXPECT_TRUE(std::isnan(of_edges[6]));
}

// Sums of as many elements as a vector has, one more, and of thousands, in either direction: as
// exact as double, and what is no number shows from its place on only.
TEST_P(VectorLevels, RunningSumsAreThoseOfDouble) {
  for (const int64_t n : {1, 4, 7, 16, 17, 31, 64, 100, 4099}) {
    std::vector<float> x(static_cast<size_t>(n));
    for (size_t i = 0; i < x.size(); ++i) x[i] = 100 + static_cast<float>(normal_at({5, 1}, i));
    for (const bool reversed : {false, true}) {
      for (const int64_t at_once : {n, int64_t{0}}) {  // along a row; added to sums of columns
        std::vector<float> y(x.size() + 1, 7.0F);
        std::vector<double> sums(x.size());
        if (at_once == n) {
          GetParam().f32->running_sums(reversed, x.data(), y.data(), n);
        } else {
          for (size_t i = 0; i < sums.size(); ++i) sums[i] = 3 + static_cast<double>(i);
          GetParam().f32->add_to_running(x.data(), n, sums.data(), y.data(), n);
        }
        double sum = 0;
        for (int64_t k = 0; k < n; ++k) {
          const auto i = static_cast<size_t>(reversed ? n - 1 - k : k);
          sum += double{x[i]};
          const double want = at_once == n ? sum : 3 + static_cast<double>(i) + double{x[i]};
          ASSERT_NEAR(y[i] / want, 1, 0x1p-24 + 1e-12) << n << " at " << i;
          if (at_once == 0) {
            ASSERT_EQ(sums[i], want);
          }
        }
        EXPECT_EQ(y[x.size()], 7.0F);
      }
      if (n < 5) continue;
      std::vector<float> with_nan = x, y(x.size());
      with_nan[3] = NAN;
      GetParam().f32->running_sums(reversed, with_nan.data(), y.data(), n);
      for (size_t i = 0; i < y.size(); ++i) {
        ASSERT_EQ(std::isnan(y[i]), reversed ? i <= 3 : i >= 3) << n << " at " << i;
      }
    }
  }
}

// A gate that is nothing stays so however large what it lets through.
TEST_P(VectorLevels, SwiGluOfFarNumbersIsNothing) {
  const testing::KeepDenormals kept;
  const std::vector<float> gate = {-89, -120, -1e20F, -1e38F, -3e38F}, up(5, 1.0F);
  std::vector<float> y(5), dgate(5), dup(5);
  GetParam().f32->swiglu(gate.data(), up.data(), y.data(), 5);
  GetParam().f32->swiglu_backward(gate.data(), up.data(), up.data(), dgate.data(), dup.data(), 5);
  for (size_t i = 0; i < gate.size(); ++i) {
    EXPECT_EQ(y[i], 0) << gate[i];
    EXPECT_EQ(dgate[i], 0) << gate[i];
    EXPECT_EQ(dup[i], 0) << gate[i];
  }
}

// Up to where it is infinite, the exponential is a number.
TEST_P(VectorLevels, ExpIsFiniteToItsEnd) {
  std::vector<float> x;
  for (float at = 88.0F; at <= 88.72F; at = std::nextafter(at, 89.0F)) x.push_back(at);
  const auto n = static_cast<int64_t>(x.size());
  std::vector<float> y(x.size()), slope(x.size());
  const std::vector<float> ones(x.size(), 1.0F);
  GetParam().f32->unary(Unary::kExp, 0, 0, x.data(), y.data(), n);
  GetParam().f32->unary_backward(Unary::kExp, 0, 0, x.data(), ones.data(), slope.data(), n);
  for (size_t i = 0; i < x.size(); ++i) {
    const bool last = GetParam().name == "v4" && x[i] > 88.711F;
    ASSERT_NEAR(y[i] / std::exp(double{x[i]}), 1, last ? 1.5e-6 : 2.5e-7) << "of " << x[i];
    ASSERT_EQ(slope[i], y[i]) << "of " << x[i];
  }
  const float far[] = {88.73F, 89, 1000, 3e38F, std::numeric_limits<float>::infinity()};
  std::vector<float> powers(5);
  GetParam().f32->unary(Unary::kExp, 0, 0, far, powers.data(), 5);
  for (const float power : powers) EXPECT_EQ(power, std::numeric_limits<float>::infinity());
}

// No product of 0 and infinity makes a NaN of a finite number.
TEST_P(VectorLevels, QuickGeluOfFarNumbersIsItsLimit) {
  const std::vector<float> x = {-3.4e38F, -1e38F, -1e15F, -1e3F, 1e3F, 1e15F, 1e38F, 3.4e38F};
  const std::vector<float> ones(8, 1.0F);
  std::vector<float> y(8), slope(8);
  GetParam().f32->unary(Unary::kQuickGelu, 0, 0, x.data(), y.data(), 8);
  GetParam().f32->unary_backward(Unary::kQuickGelu, 0, 0, x.data(), ones.data(), slope.data(), 8);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(y[i], x[i] > 0 ? x[i] : 0) << "of " << x[i];
    EXPECT_EQ(slope[i], x[i] > 0) << "of " << x[i];
  }
}

TEST_P(VectorLevels, AnElementDoesNotDependOnWhereTheRowIsCut) {
  for (const Unary kind : kUnaries) {
    const std::vector<float> x = points(kind);
    const int64_t n = static_cast<int64_t>(x.size());
    std::vector<float> whole(x.size()), cut(x.size());
    GetParam().f32->unary(kind, 0.5F, 1.5F, x.data(), whole.data(), n);
    for (int64_t from = 0, step = 1; from < n; from += step, step = step % 97 + 1) {
      const int64_t count = std::min(step, n - from);
      GetParam().f32->unary(kind, 0.5F, 1.5F, x.data() + from, cut.data() + from, count);
    }
    EXPECT_EQ(whole, cut) << "function " << static_cast<int>(kind);
  }
}

TEST_P(VectorLevels, NothingIsWrittenBehindARow) {
  for (const Unary kind : kUnaries) {
    const std::vector<float> x = points(kind);
    for (const int64_t n : {0, 1, 63, 64, 65, 131}) {
      std::vector<float> y(200, 7.0F);
      GetParam().f32->unary(kind, 0.5F, 1.5F, x.data(), y.data(), n);
      EXPECT_TRUE(std::all_of(y.begin() + n, y.end(), [](float v) { return v == 7.0F; }));
    }
  }
}

TEST_P(VectorLevels, TwoOperandsWithAndWithoutSteps) {
  const float x[5] = {1, -2, 3, NAN, 0.5F}, y[5] = {2, -2, 1, 1, NAN};
  float z[5];
  for (const int64_t sx : {0, 1}) {
    for (const int64_t sy : {0, 1}) {
      const auto expect = [&](Binary kind, auto f) {
        GetParam().f32->binary(kind, x, sx, y, sy, z, 5);
        for (int64_t i = 0; i < 5; ++i) {
          const float want = f(x[i * sx], y[i * sy]);
          EXPECT_TRUE(z[i] == want || (std::isnan(z[i]) && std::isnan(want)))
              << static_cast<int>(kind) << " " << sx << sy << " " << i;
        }
      };
      const auto unordered = [](float p, float q) { return std::isnan(p) || std::isnan(q); };
      expect(Binary::kAdd, [](float p, float q) { return p + q; });
      expect(Binary::kSubtract, [](float p, float q) { return p - q; });
      expect(Binary::kMultiply, [](float p, float q) { return p * q; });
      expect(Binary::kDivide, [](float p, float q) { return p / q; });
      expect(Binary::kMinimum,
             [&](float p, float q) { return unordered(p, q) ? NAN : std::min(p, q); });
      expect(Binary::kMaximum,
             [&](float p, float q) { return unordered(p, q) ? NAN : std::max(p, q); });
    }
  }
}

TEST_P(VectorLevels, TheExtremeOfARowIsNanWhereOneIs) {
  std::vector<float> x(131);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 37 % 131);
  EXPECT_EQ(GetParam().f32->extreme(true, x.data(), 131), 130.0F);
  EXPECT_EQ(GetParam().f32->extreme(false, x.data(), 131), 0.0F);
  x[77] = NAN;
  EXPECT_TRUE(std::isnan(GetParam().f32->extreme(true, x.data(), 131)));
  EXPECT_TRUE(std::isnan(GetParam().f32->extreme(false, x.data(), 131)));
}

INSTANTIATE_TEST_SUITE_P(All, VectorLevels, ::testing::ValuesIn(levels()),
                         [](const auto& level) { return level.param.name; });

}  // namespace
}  // namespace weft::cpu
