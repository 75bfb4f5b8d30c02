// The softmaxes of rows of halves against double, at every level that this processor has: an
// result may be off by 2^-12 of it before it is rounded, as its exponential and their sum may err
// by 2^-13 each (kernels/cpu/norms.h).
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/level.h"
#include "kernels/cpu/norms_levels.h"
#include "kernels/ops/random.h"

namespace weft::cpu {
namespace {

struct Loops {
  Level level;
  const NormKernels<bfloat16>* of;
};
std::vector<Loops> levels() {
  std::vector<Loops> all = {{Level::kV2, &norms_bf16_v2}};
  for (const Loops& loops : {Loops{Level::kV3, &norms_bf16_v3}, Loops{Level::kV4, &norms_bf16_v4},
                             Loops{Level::kBf16, &norms_bf16_avx512bf16}}) {
    if (supported(loops.level)) all.push_back(loops);
  }
  return all;
}

class SoftmaxesOfHalves : public ::testing::TestWithParam<Loops> {};

using Row = std::vector<bfloat16>;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kOff = 0x1p-12, kLeastNormal = 0x1p-126, kGreatest = 0x1.FEp127;

bfloat16 half_of_bits(uint16_t bits) { return std::bit_cast<bfloat16>(bits); }
double wide(bfloat16 half) { return static_cast<double>(static_cast<float>(half)); }

// Half the distance between halves there.
double rounding(double value) {
  const double size = std::max(std::abs(value), kLeastNormal);
  return std::ldexp(1.0, std::ilogb(size) - 8);
}

// log(sum(e^x)), and the greatest.
struct Sum {
  double largest, log_total;
};
Sum sum_of(const bfloat16* x, int64_t n) {
  double largest = -kInfinity, total = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, wide(x[i]));
  for (int64_t i = 0; i < n; ++i) total += std::exp(wide(x[i]) - largest);
  return {largest, std::log(total)};
}

// Both functions over rows, with something behind the results that has to stay.
struct Results {
  Row weights, logs;
  Results(const NormKernels<bfloat16>& k, const Row& x, bool past, int64_t rows, int64_t n)
      : weights(x.size() + 1, bfloat16(7)), logs(weights) {
    std::vector<float> exponentials(static_cast<size_t>((n + 31) / 32 * 32));
    k.softmax(x.data(), exponentials.data(), past, rows, n, weights.data());
    k.log_softmax(x.data(), past, rows, n, logs.data());
    EXPECT_EQ(wide(weights.back()), 7);
    EXPECT_EQ(wide(logs.back()), 7);
  }
};

void expect_near_double(const NormKernels<bfloat16>& k, const Row& x, int64_t rows, int64_t n) {
  const Results of(k, x, false, rows, n);
  for (int64_t row = 0; row < rows; ++row) {
    const Sum sum = sum_of(x.data() + row * n, n);
    for (int64_t i = 0; i < n; ++i) {
      const size_t at = static_cast<size_t>(row * n + i);
      const double log = (wide(x[at]) - sum.largest) - sum.log_total, weight = std::exp(log);
      ASSERT_NEAR(wide(of.weights[at]), weight, rounding(weight) + kOff * weight + kLeastNormal)
          << "softmax, row " << row << " at " << i;
      if (log < -kGreatest - rounding(kGreatest)) {
        ASSERT_EQ(of.logs[at], -kInfinity) << "log-softmax, row " << row << " at " << i;
        continue;
      }
      // 2^-20: what a total in float says of a logarithm near 0.
      ASSERT_NEAR(wide(of.logs[at]), log, rounding(log) + kOff * std::abs(log) + 0x1p-20)
          << "log-softmax, row " << row << " at " << i;
    }
  }
}

constexpr int64_t kWidths[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000, 4096, 4099};

// Rows about 0, far from it, and so wide that most exponentials are 0; the second with its greatest
// number last, the third one that stands out.
TEST_P(SoftmaxesOfHalves, FollowDouble) {
  for (const int64_t n : kWidths) {
    for (const double scale : {0.01, 2.0, 40.0}) {
      for (const double shift : {0.0, -300.0, 5000.0}) {
        SCOPED_TRACE(testing::Message() << n << " scale " << scale << " shift " << shift);
        constexpr int64_t kRows = 3;
        Row x(static_cast<size_t>(kRows * n));
        for (size_t i = 0; i < x.size(); ++i) {
          x[i] = bfloat16(static_cast<float>(scale * normal_at({8, 1}, i) + shift));
        }
        std::sort(x.begin() + n, x.begin() + 2 * n,
                  [](bfloat16 a, bfloat16 b) { return wide(a) < wide(b); });
        x[static_cast<size_t>(2 * n)] = bfloat16(static_cast<float>(shift + 8 + 8 * scale));
        expect_near_double(*GetParam().of, x, kRows, n);
      }
    }
  }
}

// What no exponent of a float holds beside the first numbers, and what is masked.
TEST_P(SoftmaxesOfHalves, FollowDoubleOfExtremeRows) {
  constexpr float greatest = static_cast<float>(kGreatest);
  for (const int64_t n : {33, 64, 1000}) {
    const auto check = [&](float most, float first, float last) {
      SCOPED_TRACE(testing::Message() << n << ": " << first << ", " << most << ", " << last);
      Row x(static_cast<size_t>(n), bfloat16(most));
      x.front() = bfloat16(first);
      x.back() = bfloat16(last);
      expect_near_double(*GetParam().of, x, 1, n);
    };
    for (const float most : {0.0F, -kInfinity, 200.0F, -1e30F, 1e30F, -greatest, greatest}) {
      for (const float last : {0.0F, 60.0F, 100.0F, 1e4F, -1e4F, 1e30F, greatest, -greatest}) {
        check(most, 0, last);
        check(most, last, 1);
        check(most, -kInfinity, last);
      }
    }
  }
}

// Rows whose first elements are hidden, beside one of which all are seen.
TEST_P(SoftmaxesOfHalves, FollowDoubleBehindHiddenElements) {
  for (const int64_t n : {33, 64, 100, 2080}) {
    for (const int64_t hidden : {int64_t{31}, int64_t{32}, int64_t{33}, n - 1}) {
      SCOPED_TRACE(testing::Message() << n << ", " << hidden << " hidden");
      Row x(static_cast<size_t>(3 * n));
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = bfloat16(static_cast<float>(4 * normal_at({8, 3}, i)));
      }
      std::fill_n(x.begin(), std::min(hidden, n - 1), bfloat16(-kInfinity));
      std::fill_n(x.begin() + 2 * n, std::min(hidden, n - 1), bfloat16(-kInfinity));
      expect_near_double(*GetParam().of, x, 3, n);
    }
  }
}

// A row that is nearly certain: its logarithm near 0 is as exact as others.
TEST_P(SoftmaxesOfHalves, LogarithmsNearZeroKeepTheirDigits) {
  for (const float apart : {1.0F, 4.0F, 7.0F, 10.0F}) {
    for (const float shift : {0.0F, 3.3F, -77.0F, 640.0F}) {
      Row x(40, bfloat16(shift - 40));
      x[3] = bfloat16(shift);
      x[38] = bfloat16(static_cast<float>(x[3]) - apart);
      const Results of(*GetParam().of, x, false, 1, 40);
      const double log = -std::log1p(std::exp(wide(x[38]) - wide(x[3])));
      EXPECT_NEAR(wide(of.logs[3]), log, rounding(log) + kOff * std::abs(log) + 0x1p-23)
          << apart << " " << shift;
    }
  }
}

// Of each half there is, by the gradient of log-softmax: dy is 0 but for -1 at an element of
// weight 0, so that dx is e^y.
TEST_P(SoftmaxesOfHalves, EveryExponential) {
  constexpr size_t kAll = 1 << 16;
  Row y(kAll + 1), dy(y.size(), bfloat16(0)), dx(y.size());
  for (size_t bits = 0; bits < kAll; ++bits) y[bits] = half_of_bits(static_cast<uint16_t>(bits));
  y.back() = bfloat16(-kInfinity);
  dy.back() = bfloat16(-1);
  GetParam().of->log_softmax_backward(y.data(), dy.data(), false, static_cast<int64_t>(y.size()),
                                      dx.data());
  EXPECT_EQ(wide(dx.back()), -1);
  for (size_t bits = 0; bits < kAll; ++bits) {
    const double exact = std::exp(wide(y[bits])), got = wide(dx[bits]);
    if (std::isnan(exact)) {
      EXPECT_TRUE(std::isnan(got)) << bits;
    } else if (exact > kGreatest) {
      EXPECT_GE(got, kGreatest) << wide(y[bits]);
    } else {
      EXPECT_NEAR(got, exact, rounding(exact) + kOff * exact + kLeastNormal) << wide(y[bits]);
    }
  }
  EXPECT_EQ(wide(dx[0]), 1);
}

// Where a result is nearly certain its gradient is what two numbers differ by that are nearly
// alike.
TEST_P(SoftmaxesOfHalves, TheGradientOfWhatIsNearlyCertain) {
  for (int k = 1; k < 24; ++k) {
    const bfloat16 log = bfloat16(-std::ldexp(1.0F, -k));
    Row y(8, bfloat16(-20)), dy(8, bfloat16(0)), dx(8);
    y[0] = log;
    dy[0] = bfloat16(-1);
    GetParam().of->log_softmax_backward(y.data(), dy.data(), false, 8, dx.data());
    const double exact = std::expm1(wide(log));
    EXPECT_NEAR(wide(dx[0]), exact, 0x1p-7 * std::abs(exact)) << k;
  }
}

// To the bit as one after the other, into the caches.
TEST_P(SoftmaxesOfHalves, SeveralRowsAreOneAfterTheOther) {
  for (const int64_t n : {1, 31, 32, 100, 2048, 2080}) {
    for (const int64_t rows : {1, 2, 3, 4}) {
      Row x(static_cast<size_t>(rows * n));
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = bfloat16(static_cast<float>(4 * normal_at({8, 2}, i)));
      }
      const Results together(*GetParam().of, x, true, rows, n);
      for (int64_t row = 0; row < rows; ++row) {
        const Row one(x.begin() + row * n, x.begin() + (row + 1) * n);
        const Results alone(*GetParam().of, one, false, 1, n);
        for (int64_t i = 0; i < n; ++i) {
          const size_t from = static_cast<size_t>(i), at = static_cast<size_t>(row * n + i);
          ASSERT_EQ(wide(together.weights[at]), wide(alone.weights[from])) << n << " " << rows;
          ASSERT_EQ(wide(together.logs[at]), wide(alone.logs[from])) << n << " " << rows;
        }
      }
    }
  }
}

// A NaN of either sign or +infinity anywhere leaves no number; the rows beside it stay.
TEST_P(SoftmaxesOfHalves, NansAndInfinity) {
  constexpr int64_t kLength = 77, kRows = 3;
  for (const uint16_t bits : {0x7FC0, 0xFFC0, 0x7F81, 0xFFFF, 0x7F80}) {
    for (const float others : {1.0F, -1.0F, -kInfinity}) {
      for (const int64_t at : {0, 1, 31, 40, 76}) {
        SCOPED_TRACE(testing::Message() << bits << " among " << others << " at " << at);
        Row x(kRows * kLength, bfloat16(1));
        std::fill_n(x.begin() + kLength, kLength, bfloat16(others));
        x[static_cast<size_t>(kLength + at)] = half_of_bits(bits);
        const Results of(*GetParam().of, x, false, kRows, kLength);
        for (size_t i = 0; i < x.size(); ++i) {
          const bool second = i / kLength == 1;
          ASSERT_EQ(std::isnan(wide(of.weights[i])), second) << i;
          ASSERT_EQ(std::isnan(wide(of.logs[i])), second) << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SoftmaxesOfHalves, ::testing::ValuesIn(levels()),
                         [](const auto& loops) -> std::string {
                           switch (loops.param.level) {
                             case Level::kV2:
                               return "v2";
                             case Level::kV3:
                               return "v3";
                             case Level::kV4:
                               return "v4";
                             default:
                               return "bf16";
                           }
                         });

}  // namespace
}  // namespace weft::cpu
