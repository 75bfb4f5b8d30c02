#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>

#include "worker/serve/generate.h"

namespace weft {
namespace {

constexpr std::array<float, 5> kLogits{0.0F, 2.0F, 1.0F, 2.0F, -1.0F};

std::map<int64_t, int> histogram(const GenerateOptions& options, int64_t usable = 5) {
  std::map<int64_t, int> counts;
  for (int i = 0; i < 10000; ++i) ++counts[choose_token(kLogits, usable, options, i / 10000.0)];
  return counts;
}

TEST(ChooseToken, GreedyTakesTheFirstOfTheLikeliest) {
  EXPECT_EQ(choose_token(kLogits, 5, {.greedy = true}, 0.9), 1);
  EXPECT_EQ(choose_token(kLogits, 1, {.greedy = true}, 0.9), 0);
}

TEST(ChooseToken, DrawsInProportionToTheSoftmax) {
  double total = 0;
  for (float logit : kLogits) total += std::exp(double{logit} / 0.5);
  const auto counts = histogram({.temperature = 0.5});
  for (size_t i = 0; i < kLogits.size(); ++i) {
    const auto found = counts.find(static_cast<int64_t>(i));
    const double share = found == counts.end() ? 0 : found->second / 10000.0;
    EXPECT_NEAR(share, std::exp(double{kLogits[i]} / 0.5) / total, 2e-4) << i;
  }
}

TEST(ChooseToken, TopKAndTopPKeepTheLikeliest) {
  EXPECT_EQ(histogram({.top_k = 2}).size(), 2U);
  EXPECT_EQ(histogram({.top_k = 1}).begin()->first, 1);
  // Probabilities: 0.389, 0.389, 0.143, 0.053, 0.019
  EXPECT_EQ(histogram({.top_p = 0.3}).size(), 1U);
  EXPECT_EQ(histogram({.top_p = 0.7}).size(), 2U);
  EXPECT_EQ(histogram({.top_p = 0.9}).size(), 3U);
  EXPECT_EQ(histogram({.top_p = 1.0}).size(), 5U);
}

TEST(ChooseToken, RowsWithoutATokenAreNotDrawn) {
  for (const auto& [id, count] : histogram({.temperature = 100}, 2)) EXPECT_LT(id, 2);
}

TEST(GenerateOptions, AreChecked) {
  EXPECT_TRUE(check_options({}).ok());
  EXPECT_EQ(check_options({.max_tokens = -1}).field(), "max_tokens");
  EXPECT_EQ(check_options({.temperature = 0}).field(), "temperature");
  EXPECT_EQ(check_options({.temperature = NAN}).field(), "temperature");
  EXPECT_EQ(check_options({.top_k = -1}).field(), "top_k");
  EXPECT_EQ(check_options({.top_p = 0}).field(), "top_p");
  EXPECT_EQ(check_options({.top_p = 1.5}).field(), "top_p");
}

}  // namespace
}  // namespace weft
