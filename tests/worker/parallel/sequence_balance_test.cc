// Equal shares of the attention's work, and the choice between rings and exchanges.
#include "worker/parallel/sequence_balance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <random>

#include "worker/parallel/sequence_choice.h"

namespace weft::parallel {
namespace {

std::vector<int64_t> counted(const AttentionPattern& pattern, int64_t tokens,
                             const std::vector<int64_t>& documents,
                             const std::vector<uint8_t>& valid) {
  std::vector<int64_t> seen(static_cast<size_t>(tokens));
  for (int64_t i = 0; i < tokens; ++i) {
    for (int64_t j = 0; j < tokens; ++j) {
      const auto q = static_cast<size_t>(i), k = static_cast<size_t>(j);
      const bool sees = (valid.empty() || valid[k] != 0) &&
                        (documents.empty() || documents[q] == documents[k]) &&
                        (!pattern.causal || j <= i) &&
                        (pattern.window_left < 0 || j >= i - pattern.window_left) &&
                        (pattern.window_right < 0 || j <= i + pattern.window_right);
      seen[q] += sees ? 1 : 0;
    }
  }
  return seen;
}

TEST(KeysSeen, AreThoseThatTheRulesLetThrough) {
  const std::vector<int64_t> documents{0, 0, 0, 1, 1, 2, 2, 2, 2, 5};
  const std::vector<uint8_t> valid{1, 0, 1, 1, 1, 1, 1, 0, 0, 1};
  for (const bool causal : {false, true}) {
    for (const int64_t left : {-1, 0, 2}) {
      for (const int64_t right : {-1, 1}) {
        const AttentionPattern pattern{causal, left, right};
        EXPECT_EQ(keys_seen(pattern, 10, {}, {}), counted(pattern, 10, {}, {}));
        EXPECT_EQ(keys_seen(pattern, 10, documents, valid), counted(pattern, 10, documents, valid));
      }
    }
  }
}

TEST(BalancedLayout, OfACausalAttentionItIsTheZigzag) {
  const SequenceLayout layout = balanced_layout(keys_seen({.causal = true}, 64, {}, {}), 4);
  for (int rank = 0; rank < 4; ++rank) {
    std::vector<Part> expected{{rank * 8, 8}, {(7 - rank) * 8, 8}};
    if (rank == 3) expected = {{24, 16}};
    EXPECT_EQ(layout.runs(rank), expected) << rank;
  }
}

TEST(BalancedLayout, IsContiguousWhereThatIsEven) {
  for (const AttentionPattern& pattern :
       {AttentionPattern{}, AttentionPattern{true, 8}, AttentionPattern{false, 8, 8}}) {
    const SequenceLayout layout = balanced_layout(keys_seen(pattern, 4096, {}, {}), 4);
    for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(layout.runs(rank).size(), 1U);
  }
}

// Documents of any lengths, windows of any width, to either side, and padding behind: 5% where
// there are enough tokens to deal.
TEST(BalancedLayout, PackedAndWindowed) {
  std::mt19937 random(7);
  const auto below = [&](int64_t end) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(end));
  };
  for (int round = 0; round < 600; ++round) {
    const int ranks = 2 + round % 7;
    const int64_t tokens = 8192, longest = std::array{8000, 900, 150}[round % 3];
    std::vector<int64_t> documents;
    for (int64_t id = 0; std::ssize(documents) < tokens; ++id) {
      documents.insert(documents.end(), static_cast<size_t>(1 + below(longest)), id);
    }
    documents.resize(static_cast<size_t>(tokens));
    AttentionPattern pattern{below(4) > 0};
    if (below(2) == 0) pattern.window_left = 10 + below(tokens);
    if (!pattern.causal && below(2) == 0) pattern.window_right = 10 + below(tokens);
    std::vector<uint8_t> valid(static_cast<size_t>(tokens), 1);
    if (below(4) == 0) std::fill(valid.begin() + tokens / 4 + below(tokens / 2), valid.end(), 0);
    const auto cost = keys_seen(pattern, tokens, documents, valid);
    const SequenceLayout layout = balanced_layout(cost, ranks);
    EXPECT_LE(imbalance(layout, cost), 1.05) << "round " << round;
    for (int rank = 0; rank < ranks; ++rank) {
      EXPECT_NEAR(static_cast<double>(layout.length(rank)), static_cast<double>(tokens) / ranks,
                  32);
    }
  }
}

TEST(BalancedLayout, FewTokens) {
  for (const int64_t tokens : {0, 1, 3, 9}) {
    for (const int ranks : {1, 2, 5}) {
      const auto cost = keys_seen({.causal = true}, tokens, {}, {});
      const SequenceLayout layout = balanced_layout(cost, ranks);
      EXPECT_EQ(layout.tokens(), tokens);
      EXPECT_EQ(layout.ranks(), ranks);
      EXPECT_GE(imbalance(layout, cost), 1);
    }
  }
  const std::vector<int64_t> nothing(5, 0);
  EXPECT_EQ(imbalance(balanced_layout(nothing, 2), nothing), 1);
}

TEST(LeastSent, WeighsExchangesAgainstRings) {
  EXPECT_EQ(least_sent({12, 12}, 1, true, false), 1);
  EXPECT_EQ(least_sent({12, 12}, 2, true, false), 2);
  EXPECT_EQ(least_sent({12, 12}, 4, true, false), 4);
  EXPECT_EQ(least_sent({12, 12}, 8, true, false), 4);  // 8 does not split 12 heads
  EXPECT_EQ(least_sent({32, 8}, 8, true, true), 8);
  EXPECT_EQ(least_sent({32, 1}, 8, true, false), 1);  // one head of keys is cheap to pass round
  EXPECT_EQ(least_sent({1, 1}, 6, false, false), 1);
  EXPECT_EQ(least_sent({7, 7}, 5, true, false), 1);
}

}  // namespace
}  // namespace weft::parallel
