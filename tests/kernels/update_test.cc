// The loops of the optimizer step at every level, against double.
#include "kernels/cpu/update.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "kernels/ops/random.h"

namespace weft::cpu {
namespace {

constexpr std::array kLevels{Level::kV2, Level::kV3, Level::kV4, Level::kBf16};

std::vector<float> drawn(size_t n, uint64_t stream) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = static_cast<float>(normal_at({5, stream}, i));
  return values;
}

TEST(Update, EveryLevelFollowsDouble) {
  const AdamWFactors f{0.5F, 0.9F, 0.99F, 0.1F, 0.01F, 0.999F, 1e-2F, 1.25F, 1e-8F};
  for (const Level level : kLevels) {
    if (!supported(level)) continue;
    for (const size_t n : {1U, 7U, 16U, 45U, 1000U}) {
      const std::vector<float> g = drawn(n, 1), m0 = drawn(n, 2), p0 = drawn(n, 4);
      std::vector<float> v0 = drawn(n, 3);
      for (float& value : v0) value *= value;
      std::vector<float> m = m0, v = v0, p = p0;
      update_at(level).adamw(f, g.data(), m.data(), v.data(), p.data(), static_cast<int64_t>(n));
      double squares = 0;
      for (size_t i = 0; i < n; ++i) {
        const double value = double{g[i]} * double{f.scale};
        const double first = double{f.beta1} * double{m0[i]} + double{f.rest1} * value;
        const double second = double{f.beta2} * double{v0[i]} + double{f.rest2} * value * value;
        const double root = std::sqrt(second) * double{f.root} + double{f.epsilon};
        const double expected = double{f.keep} * double{p0[i]} - double{f.step} * first / root;
        EXPECT_NEAR(m[i], first, 2e-7 * (1 + std::abs(first)));
        EXPECT_NEAR(v[i], second, 2e-7 * (1 + second));
        EXPECT_NEAR(p[i], expected, 4e-7 * (1 + std::abs(expected)));
        squares += double{g[i]} * double{g[i]};
      }
      EXPECT_NEAR(update_at(level).sum_of_squares(g.data(), static_cast<int64_t>(n)), squares,
                  1e-14 * squares);
    }
  }
}

bool nan(uint32_t word) { return (word & 0x7FFFFFFFU) > 0x7F800000U; }

// Each upper half beside lower ones on both sides of a tie, and in between: subnormal, huge,
// infinite, NaN.
TEST(Update, HalvesMakeTheNumberThatTheyWereMadeOf) {
  std::vector<float> x;
  for (uint32_t upper = 0; upper < 0x10000U; ++upper) {
    const uint32_t between = philox({7, 0}, upper)[0] & 0xFFFFU;
    for (const uint32_t lower : {0U, 1U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU, between}) {
      x.push_back(std::bit_cast<float>(upper << 16 | lower));
    }
  }
  const auto n = static_cast<int64_t>(x.size());
  for (const Level level : kLevels) {
    if (!supported(level)) continue;
    std::vector<bfloat16> value(x.size()), low(x.size());
    std::vector<float> again(x.size());
    update_at(level).split(x.data(), value.data(), low.data(), n);
    update_at(level).join(value.data(), low.data(), again.data(), n);
    for (size_t i = 0; i < x.size(); ++i) {
      const auto word = std::bit_cast<uint32_t>(x[i]), joined = std::bit_cast<uint32_t>(again[i]);
      const uint32_t lower = word & 0xFFFFU;
      if (nan(word)) {
        ASSERT_EQ(value[i].bits, bfloat16::round(word)) << word;
        ASSERT_EQ(joined, uint32_t{value[i].bits} << 16) << word;
        continue;
      }
      ASSERT_EQ(joined, word);
      ASSERT_EQ(value[i].bits, lower < 0x8000U ? word >> 16 : (word >> 16) + 1) << word;
      if (lower == 0x8000U) continue;
      ASSERT_EQ(value[i].bits, bfloat16::round(word)) << word;
    }
  }
}

// A hundred updates of numbers and of their halves, some of which start subnormal, huge, infinite
// or as NaN.
TEST(Update, HalvesAreUpdatedLikeTheNumbers) {
  const AdamWFactors f{0.5F, 0.9F, 0.99F, 0.1F, 0.01F, 0.999F, 1e-2F, 1.25F, 1e-8F};
  for (const Level level : kLevels) {
    if (!supported(level)) continue;
    const UpdateKernels& update = update_at(level);
    for (const size_t n : {1U, 45U, 64U, 1000U}) {
      const auto count = static_cast<int64_t>(n);
      std::vector<float> p = drawn(n, 4);
      const std::vector<float> special{0.0F,    -0.0F,       1e-40F,   -3e-39F,
                                       3.4e38F, -3.4028e38F, INFINITY, -INFINITY,
                                       NAN,     1.00390625F, 1e-30F};
      for (size_t i = 0; i < n / 3; ++i) p[3 * i] = special[i % special.size()];
      std::vector<float> m(n), v(n), m2(n), v2(n), joined(n);
      std::vector<bfloat16> value(n), low(n);
      update.split(p.data(), value.data(), low.data(), count);
      for (uint64_t step = 0; step < 100; ++step) {
        std::vector<float> g = drawn(n, 100 + step);
        for (size_t i = 0; i < n / 5; ++i) g[5 * i] = 0;  // some numbers hardly change
        update.adamw(f, g.data(), m.data(), v.data(), p.data(), count);
        update.adamw_halves(f, g.data(), m2.data(), v2.data(), value.data(), low.data(), count);
        update.join(value.data(), low.data(), joined.data(), count);
        ASSERT_EQ(m2, m);
        ASSERT_EQ(v2, v);
        for (size_t i = 0; i < n; ++i) {
          const auto word = std::bit_cast<uint32_t>(joined[i]);
          const auto expected = std::bit_cast<uint32_t>(p[i]);
          ASSERT_TRUE(word == expected || (nan(word) && nan(expected))) << i << " step " << step;
        }
      }
    }
  }
}

}  // namespace
}  // namespace weft::cpu
