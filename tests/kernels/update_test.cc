// The loops of the optimizer step at every level, against double.
#include "kernels/cpu/update.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/ops/random.h"

namespace weft::cpu {
namespace {

std::vector<float> drawn(size_t n, uint64_t stream) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = static_cast<float>(normal_at({5, stream}, i));
  return values;
}

TEST(Update, EveryLevelFollowsDouble) {
  const AdamWFactors f{0.5F, 0.9F, 0.99F, 0.1F, 0.01F, 0.999F, 1e-2F, 1.25F, 1e-8F};
  for (const Level level : {Level::kV2, Level::kV3, Level::kV4, Level::kBf16}) {
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

TEST(Update, ValuesAreTheRoundedMasters) {
  const AdamWFactors f{0.5F, 0.9F, 0.99F, 0.1F, 0.01F, 0.999F, 1e-2F, 1.25F, 1e-8F};
  for (const Level level : {Level::kV2, Level::kV3, Level::kV4, Level::kBf16}) {
    if (!supported(level)) continue;
    for (const size_t n : {1U, 45U, 64U, 1000U}) {
      for (const size_t first : {0U, 3U}) {  // whole lines of values, and others
        const auto count = static_cast<int64_t>(n);
        const std::vector<float> g = drawn(n, 1), p0 = drawn(n, 4);
        std::vector<float> m(n), v(n), p = p0, m2(n), v2(n), p2 = p0;
        std::vector<bfloat16> memory(n + 32 + first), expected(n);
        bfloat16* y = memory.data();
        while (reinterpret_cast<uintptr_t>(y) % 64 != 0) ++y;
        y += first;
        update_at(level).adamw(f, g.data(), m.data(), v.data(), p.data(), count);
        convert_at(level).round_bf16(p.data(), expected.data(), count);
        update_at(level).adamw_bf16(f, g.data(), m2.data(), v2.data(), p2.data(), y, count);
        EXPECT_EQ(m2, m);
        EXPECT_EQ(v2, v);
        EXPECT_EQ(p2, p);
        for (size_t i = 0; i < n; ++i) ASSERT_EQ(y[i].bits, expected[i].bits) << i;
      }
    }
  }
}

}  // namespace
}  // namespace weft::cpu
