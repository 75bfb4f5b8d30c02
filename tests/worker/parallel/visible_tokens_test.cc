// What of some tokens others can see, against asking every pair.
#include "worker/parallel/visible_tokens.h"

#include <gtest/gtest.h>

#include <random>

namespace weft::parallel {
namespace {

struct Row {
  attention::Visibility rules;
  std::vector<int64_t> documents, positions;  // empty: none
  std::vector<uint8_t> valid;

  bool sees(int64_t query, int64_t key) const {
    const auto q = static_cast<size_t>(query), k = static_cast<size_t>(key);
    if (!valid.empty() && valid[k] == 0) return false;
    if (!documents.empty() && documents[q] != documents[k]) return false;
    const int64_t ahead = positions.empty() ? key - query : positions[k] - positions[q];
    return (!rules.causal || ahead <= 0) &&
           (rules.window_left < 0 || -ahead <= rules.window_left) &&
           (rules.window_right < 0 || ahead <= rules.window_right);
  }
};

template <typename T>
Tensor tensor(Allocator& allocator, const std::vector<T>& values) {
  if (values.empty()) return Tensor();
  return Tensor::from<T>(allocator, {1, static_cast<int64_t>(values.size())}, values);
}

VisibleTokens made(Allocator& allocator, const Row& row, int64_t tokens) {
  attention::Visibility whole = row.rules;
  whole.query_document = whole.key_document = tensor(allocator, row.documents);
  whole.query_position = whole.key_position = tensor(allocator, row.positions);
  whole.key_valid = tensor(allocator, row.valid);
  return {whole, 1, tokens, tokens};
}

bool holds(const std::vector<Part>& runs, int64_t token) {
  for (const Part& run : runs) {
    if (token >= run.start && token < run.start + run.length) return true;
  }
  return false;
}

TEST(VisibleTokens, NeverLessThanIsSeenAndOfOneRuleNoMore) {
  const auto allocator = make_caching_allocator();
  std::mt19937 random(3);
  constexpr int64_t kTokens = 40;
  const std::vector<Part> keys{{3, 9}, {20, 14}}, queries{{0, 5}, {14, 6}};
  int trimmed = 0;
  for (int round = 0; round < 200; ++round) {
    Row row;
    const bool positioned = round % 5 == 0, masked = round % 3 == 0, packed = round % 2 == 0;
    row.rules.causal = round % 4 < 2;
    if (round % 7 < 3) row.rules.window_left = static_cast<int64_t>(random() % 12);
    if (round % 7 == 3) row.rules.window_right = static_cast<int64_t>(random() % 12);
    int64_t document = 0, position = 0;
    for (int64_t token = 0; token < kTokens; ++token) {
      if (random() % 6 == 0) ++document, position = 0;
      if (packed) row.documents.push_back(document);
      if (positioned) row.positions.push_back(position++);
      if (masked) row.valid.push_back(random() % 4 == 0 ? 0 : 1);
    }
    const VisibleTokens visible = made(*allocator, row, kTokens);
    const std::vector<Part> seen = visible.of(keys, queries);
    const auto anybody = [&](int64_t key) {
      for (int64_t query = 0; query < kTokens; ++query) {
        if (holds(queries, query) && row.sees(query, key)) return true;
      }
      return false;
    };
    for (int64_t key = 0; key < kTokens; ++key) {
      if (holds(keys, key) && anybody(key)) {
        EXPECT_TRUE(holds(seen, key)) << "round " << round << " key " << key;
      }
    }
    for (const Part& run : seen) {
      EXPECT_TRUE(holds(keys, run.start) && holds(keys, run.start + run.length - 1));
      if (packed || positioned) continue;
      EXPECT_TRUE(anybody(run.start)) << round;
      EXPECT_TRUE(anybody(run.start + run.length - 1)) << round;
    }
    trimmed += total_length(seen) < total_length(keys) ? 1 : 0;
  }
  EXPECT_GT(trimmed, 100);
}

TEST(VisibleTokens, NobodySeesAndNobodyIsSeen) {
  const auto allocator = make_caching_allocator();
  Row row;
  row.rules.causal = true;
  const VisibleTokens visible = made(*allocator, row, 12);
  EXPECT_TRUE(visible.of({{0, 4}}, {}).empty());
  EXPECT_TRUE(visible.of({}, {{0, 4}}).empty());
  EXPECT_TRUE(visible.of({{6, 3}}, {{0, 6}}).empty());
  EXPECT_EQ(visible.of({{2, 8}}, {{0, 6}}), (std::vector<Part>{{2, 4}}));
}

TEST(VisibleTokens, CutsTheRules) {
  const auto allocator = make_caching_allocator();
  Row row;
  row.rules.causal = true;
  row.documents = {0, 0, 1, 1, 2};
  row.valid = {1, 0, 1, 1, 0};
  const attention::Visibility some =
      made(*allocator, row, 5).cut(*allocator, {{1, 1}, {4, 1}}, {{0, 2}, {3, 1}}, false);
  EXPECT_EQ(some.query_position.to_vector<int64_t>(), (std::vector<int64_t>{1, 4}));
  EXPECT_EQ(some.key_position.to_vector<int64_t>(), (std::vector<int64_t>{0, 1, 3}));
  EXPECT_EQ(some.query_document.to_vector<int64_t>(), (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(some.key_document.to_vector<int64_t>(), (std::vector<int64_t>{0, 0, 1}));
  EXPECT_EQ(some.key_valid.to_vector<uint8_t>(), (std::vector<uint8_t>{1, 0, 1}));
}

}  // namespace
}  // namespace weft::parallel
