#include "kernels/ops/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "kernels/cpu/rows.h"

namespace weft {
namespace {

using Words = std::array<uint32_t, 4>;

// The known-answer vectors of philox4x32-10 in the distribution of Random123.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint64_t ones = ~uint64_t{0};
  EXPECT_EQ(philox({ones, ones}, ones), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  // Counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0.
  EXPECT_EQ(philox({0x299f31d0a4093822, 0x0370734413198a2e}, 0x85a308d3243f6a88),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// By the halves of the known words, the lower one first.
TEST(Random, KeptFromAHalfOn) {
  const int halves[8] = {0xe8d5, 0x6627, 0xc58d, 0xe169, 0xac4c, 0xbc57, 0xdbd8, 0x9b00};
  for (uint64_t i = 0; i < 8; ++i) {
    EXPECT_TRUE(kept_at({0, 0}, i, halves[i])) << i;
    EXPECT_FALSE(kept_at({0, 0}, i, halves[i] + 1)) << i;
  }
}

TEST(Random, DropRuleIsTheNearestAndKeepsTheMean) {
  for (const double rate : {0.0, 0.1, 0.25, 0.3, 0.5, 0.9, 0.99}) {
    const DropRule rule(rate);
    EXPECT_NEAR(rule.dropped, rate * 65536, 0.5) << rate;
    EXPECT_DOUBLE_EQ(rule.factor * (65536 - rule.dropped), 65536) << rate;
  }
  EXPECT_EQ(DropRule(1e-9).dropped, 1);
  EXPECT_EQ(DropRule(0.9999999).dropped, 65535);
}

// The vector code draws what kept_at says, from any start, over more than one batch of lanes.
TEST(Random, RowsOfDrawsAreKeptAt) {
  const RandomKey key{0x123456789abcdef0, 0xfedcba9876543210};
  for (const uint64_t first : {uint64_t{0}, uint64_t{1}, uint64_t{63}, (uint64_t{1} << 35) - 7}) {
    for (const int64_t n : {1, 3, 64, 65, 128, 400}) {
      std::vector<float> keep(static_cast<size_t>(n), -1);
      cpu::rows<float>().draw_kept(key.seed, key.stream, first, 19661, 2.0F, keep.data(), n);
      for (size_t i = 0; i < keep.size(); ++i) {
        ASSERT_EQ(keep[i], kept_at(key, first + i, 19661) ? 2.0F : 0.0F) << first << " + " << i;
      }
    }
  }
}

// How many are dropped, and how many pairs at each distance that shares a word or a counter, are
// within four standard deviations: of independent draws one test in 15,000 would not be.
TEST(Random, DropsAreEvenAndIndependent) {
  constexpr int64_t kDraws = 1 << 22;
  for (const double rate : {0.1, 0.5, 0.9}) {
    const DropRule rule(rate);
    std::vector<float> keep(kDraws);
    cpu::rows<float>().draw_kept(5, 8, 3, rule.dropped, 1.0F, keep.data(), kDraws);
    const double p = rule.dropped / 65536.0, n = kDraws;
    const auto dropped = [&](size_t i) { return keep[i] == 0 ? 1 : 0; };
    int64_t all = 0;
    for (size_t i = 0; i < keep.size(); ++i) all += dropped(i);
    EXPECT_LT(std::abs(static_cast<double>(all) - n * p), 4 * std::sqrt(n * p * (1 - p))) << rate;
    for (size_t apart = 1; apart <= 9; ++apart) {
      int64_t pairs = 0;
      for (size_t i = apart; i < keep.size(); ++i) pairs += dropped(i) * dropped(i - apart);
      // Two pairs that share an element are not independent of one another.
      const double variance = n * (p * p * (1 - p * p) + 2 * p * p * p * (1 - p));
      EXPECT_LT(std::abs(static_cast<double>(pairs) - n * p * p), 4 * std::sqrt(variance))
          << rate << " apart " << apart;
    }
  }
}

TEST(Random, UniformIsInRangeAndEven) {
  constexpr int kDraws = 40000, kBins = 20;
  int bins[kBins] = {};
  for (uint64_t i = 0; i < kDraws; ++i) {
    const float u = uniform_at({5, 6}, i);
    ASSERT_GE(u, 0.0F);
    ASSERT_LT(u, 1.0F);
    ++bins[static_cast<int>(u * kBins)];
  }
  double chi_squared = 0;
  for (const int count : bins) {
    chi_squared += std::pow(count - kDraws / kBins, 2) / (kDraws / kBins);
  }
  EXPECT_LT(chi_squared, 43.8);  // 19 degrees of freedom, 0.1%
}

TEST(Random, NormalHasItsMoments) {
  constexpr int kDraws = 40000;
  double sum = 0, squares = 0, fourth = 0;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const double x = normal_at({5, 7}, i);
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0, 0.02);
  EXPECT_NEAR(squares / kDraws, 1, 0.03);
  EXPECT_NEAR(fourth / kDraws, 3, 0.2);
}

TEST(Random, DerivedStreamsDiffer) {
  const RandomKey key{1, 2};
  std::set<uint64_t> streams = {key.stream};
  for (uint64_t a = 0; a < 10; ++a) {
    for (uint64_t b = 0; b < 10; ++b) {
      for (uint64_t c = 0; c < 10; ++c) streams.insert(key.derive(a, b, c).stream);
    }
  }
  EXPECT_EQ(streams.size(), 1001U);
  EXPECT_EQ(key.derive(3, 4).stream, key.derive(3, 4, 0).stream);
  EXPECT_EQ(key.derive(3, 4).seed, key.seed);
}

}  // namespace
}  // namespace weft
