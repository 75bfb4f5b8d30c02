// Which tokens of a stream's windows are predicted in an order of their own, and in which.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "tests/worker/data/tokenizer_fixtures.h"
#include "worker/data/dataset.h"

namespace weft {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kStart = 995, kEnd = 996;  // of the fixture

// With a start and an end around each text.
std::unique_ptr<Tokenizer> tokenizer() {
  return load(with_ends(bpe_file(), "<|endoftext|>", kStart, "<|pad|>", kEnd));
}

Result<std::shared_ptr<const Dataset>> windows(const std::vector<std::string>& texts,
                                               int64_t length, const Tokenizer& tokenizer,
                                               double rate = 1.0 / 6, RandomKey key = {17, 0}) {
  DatasetOptions options;
  options.kind = SampleKind::kPermutationLm;
  options.sequence_length = length;
  options.mask_rate = rate;
  options.mask_key = key;
  const auto documents = [&](const std::function<Status(const Document&)>& visit) -> Status {
    for (const std::string& text : texts) {
      Document document;
      document.text = text;
      WEFT_RETURN_IF_ERROR(visit(document));
    }
    return {};
  };
  return Dataset::load(documents, options, tokenizer);
}

std::string long_text() {
  std::string text;
  for (int i = 0; i < 20000; ++i) text += "the quick brown fox jumps over a lazy dog "[i * 7 % 42];
  return text;
}

std::vector<Visit> visits(const Dataset& set, int64_t epoch) {
  std::vector<Visit> all;
  for (int64_t i = 0; i < set.samples(); ++i) all.push_back({epoch, i});
  return all;
}

// Each row: ids whole, predictions of as many of its tokens by rising places, one number each from
// 1 on; none of them special or padding.
void expect_orders(const TaskRows& rows, double rate) {
  const int64_t count = rows.predictions;
  ASSERT_EQ(std::ssize(rows.places), rows.rows * count);
  ASSERT_EQ(std::ssize(rows.labels), rows.rows * count);
  ASSERT_EQ(std::ssize(rows.order), rows.rows * rows.tokens);
  for (int64_t row = 0; row < rows.rows; ++row) {
    const auto at = [&](int64_t token) { return static_cast<size_t>(row * rows.tokens + token); };
    int64_t length = 0;
    for (int64_t token = 0; token < rows.tokens; ++token) {
      length += rows.valid.empty() || rows.valid[at(token)] != 0 ? 1 : 0;
    }
    const auto wanted = static_cast<int64_t>(std::round(rate * static_cast<double>(length)));
    std::set<int64_t> numbers;
    int64_t before = -1;
    for (int64_t k = 0; k < count; ++k) {
      const auto one = static_cast<size_t>(row * count + k);
      const int64_t place = rows.places[one];
      if (k >= wanted) {
        EXPECT_EQ(place, 0);
        EXPECT_EQ(rows.labels[one], kNoLabel);
        continue;
      }
      EXPECT_GT(place, before);
      before = place;
      EXPECT_LT(place, length);
      EXPECT_EQ(rows.labels[one], rows.ids[at(place)]);
      EXPECT_NE(rows.labels[one], kStart);
      EXPECT_NE(rows.labels[one], kEnd);
      numbers.insert(rows.order[at(place)]);
    }
    EXPECT_EQ(std::ssize(numbers), wanted);
    EXPECT_EQ(*numbers.begin(), 1);
    EXPECT_EQ(*numbers.rbegin(), wanted);
    EXPECT_EQ(std::count(rows.order.begin() + row * rows.tokens,
                         rows.order.begin() + (row + 1) * rows.tokens, 0),
              rows.tokens - wanted);
  }
}

TEST(Permutation, RowsHaveAsManyPredictionsAsTheirRateGives) {
  const auto bpe = tokenizer();
  for (const auto& [length, rate, count] :
       {std::tuple{64, 1.0 / 6, 11}, {64, 0.5, 32}, {17, 0.2, 3}, {128, 0.01, 1}}) {
    const auto set = windows({long_text(), "and more"}, length, *bpe, rate);
    ASSERT_TRUE(set) << set.error().to_string();
    const TaskRows all = (*set)->range(0, (*set)->samples());
    EXPECT_EQ(all.predictions, count);
    EXPECT_FALSE(all.valid.empty()) << "the last row is a short one";
    if (rate >= 0.1) expect_orders(all, rate);
    EXPECT_EQ((*set)->rows(std::vector<Visit>{{0, 0}}).predictions, count);
  }
}

// Of the last of an order each token is one as often as any other, and has each number as often.
TEST(Permutation, AllOrdersAreAlike) {
  const auto bpe = tokenizer();
  const auto set = windows({"abcdefghijkl"}, 10, *bpe, 0.3);
  std::map<std::pair<int64_t, int64_t>, int64_t> drawn;  // place and number
  constexpr int64_t kEpochs = 6000;
  for (int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    const TaskRows row = (*set)->rows(std::vector<Visit>{{epoch, 0}});
    ASSERT_EQ(row.predictions, 3);
    for (const int64_t place : row.places) {
      ++drawn[{place, row.order[static_cast<size_t>(place)]}];
    }
  }
  const auto tokens = static_cast<double>(drawn.size()) / 3;
  EXPECT_EQ(drawn.size(), 24U) << "8 tokens between the two that stand around";
  const double each = kEpochs / tokens;
  for (const auto& [what, count] : drawn) {
    EXPECT_NEAR(static_cast<double>(count), each, 5 * std::sqrt(each))
        << what.first << " " << what.second;
  }
}

TEST(Permutation, OrdersAreTheSameWhereverASampleIsVisited) {
  const auto bpe = tokenizer();
  const auto set = *windows({long_text()}, 64, *bpe);
  const TaskRows whole = set->rows(visits(*set, 3));
  for (const int64_t sample : {0, 1, 17}) {
    const TaskRows one = set->rows(std::vector<Visit>{{3, sample}});
    EXPECT_TRUE(std::ranges::equal(
        one.order, std::span(whole.order).subspan(static_cast<size_t>(sample * 64), 64)));
    EXPECT_TRUE(std::ranges::equal(
        one.places, std::span(whole.places).subspan(static_cast<size_t>(sample * 11), 11)));
  }
  EXPECT_EQ(set->rows(visits(*set, 4)).ids, whole.ids);
  EXPECT_NE(set->rows(visits(*set, 4)).order, whole.order);
  const auto other_seed = *windows({long_text()}, 64, *bpe, 1.0 / 6, {18, 0});
  EXPECT_NE(other_seed->rows(visits(*set, 3)).order, whole.order);
  // What evaluates is predicted alike, whatever the training's seed.
  EXPECT_EQ(other_seed->range(0, 9).order, set->range(0, 9).order);
  EXPECT_NE(set->range(0, set->samples()).order, set->rows(visits(*set, 0)).order);
}

// A token that stands alone has nothing that it could be predicted from, special ones aside.
TEST(Permutation, ATokenIsPredictedFromOthers) {
  const auto bpe = tokenizer();
  const auto framed = *windows({"a"}, 8, *bpe);
  EXPECT_THAT(framed->range(0, 1).order, ElementsAre(0, 1, 0, 0, 0, 0, 0, 0));
  const auto bytes = make_byte_tokenizer();
  EXPECT_THAT((*windows({"a"}, 8, *bytes))->range(0, 1).labels, Each(kNoLabel));
  EXPECT_EQ((*windows({"ab"}, 2, *bytes))->range(0, 1).predictions, 1);
  EXPECT_EQ(windows({"ab"}, 1, *bytes).error().to_string(),
            "sequence_length must be at least 2: a token is predicted from others (got 1)");
  EXPECT_THAT(windows({"ab"}, 2, *bpe).error().to_string(),
              HasSubstr("sequence_length must exceed the 2 tokens that the tokenizer puts around"));
  EXPECT_THAT(windows({"", ""}, 8, *bpe).error().to_string(), HasSubstr("the data is empty"));
}

}  // namespace
}  // namespace weft
