// Windows of a stream for masked language modelling, and what is masked in them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tests/worker/data/tokenizer_fixtures.h"
#include "worker/data/dataset.h"

namespace weft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kStart = 995, kEnd = 996, kMask = 997;  // of the fixture
constexpr double kRate = 0.15;

// With a start and an end around each text.
std::unique_ptr<Tokenizer> tokenizer() {
  return load(with_ends(bpe_file(), "<|endoftext|>", kStart, "<|pad|>", kEnd));
}

Result<std::shared_ptr<const Dataset>> windows(const std::vector<std::string>& texts,
                                               int64_t length, const Tokenizer& tokenizer,
                                               double rate = kRate, RandomKey key = {17, 0}) {
  DatasetOptions options;
  options.kind = SampleKind::kMaskedLm;
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
  for (int i = 0; i < 60000; ++i) text += "the quick brown fox jumps over a lazy dog "[i * 7 % 42];
  return text;
}

// What the model sees with the predicted tokens back in their places.
std::vector<int64_t> unmasked(const TaskRows& rows) {
  std::vector<int64_t> ids = rows.ids;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (rows.labels[i] != kNoLabel) ids[i] = rows.labels[i];
  }
  return ids;
}

std::vector<Visit> visits(const Dataset& set, int64_t epoch) {
  std::vector<Visit> all;
  for (int64_t i = 0; i < set.samples(); ++i) all.push_back({epoch, i});
  return all;
}

// start a b c end, start d <between> e f end, ...: each token of each document once, in order.
TEST(MaskedWindows, CutOneStreamWithSpecialTokensAroundEach) {
  const auto bpe = tokenizer();
  const std::vector<int64_t> first = *bpe->encode("abcdefg", false);
  const std::vector<int64_t> second = *bpe->encode("xyz hij", false);
  std::vector<int64_t> stream = first;
  stream.push_back(kEnd);
  stream.insert(stream.end(), second.begin(), second.end());
  for (int64_t length = 3; length < 24; ++length) {
    const auto set = windows({"abcdefg", "", "xyz hij"}, length, *bpe);
    ASSERT_TRUE(set) << set.error().to_string();
    const TaskRows rows = (*set)->range(0, (*set)->samples());
    const std::vector<int64_t> ids = unmasked(rows);
    std::vector<int64_t> seen;
    for (int64_t row = 0; row < rows.rows; ++row) {
      const auto at = [&](int64_t token) { return static_cast<size_t>(row * length + token); };
      int64_t last = length - 1;
      while (!rows.valid.empty() && rows.valid[at(last)] == 0) {
        EXPECT_EQ(rows.labels[at(last)], kNoLabel);
        --last;
      }
      EXPECT_EQ(rows.ids[at(0)], kStart);
      EXPECT_EQ(rows.ids[at(last)], kEnd);
      for (int64_t token = 1; token < last; ++token) seen.push_back(ids[at(token)]);
    }
    EXPECT_EQ(seen, stream) << length;
  }
}

// Of n draws of probability p, the count is within 3 standard errors.
void expect_share(int64_t count, int64_t n, double p) {
  const auto draws = static_cast<double>(n);
  EXPECT_NEAR(static_cast<double>(count) / draws, p, 3 * std::sqrt(p * (1 - p) / draws))
      << count << " of " << n;
}

TEST(MaskedWindows, SharesAreThoseOfThePaper) {
  const auto bpe = tokenizer();
  const auto set = *windows({long_text(), long_text()}, 128, *bpe);
  int64_t tokens = 0, chosen = 0, masked = 0, random = 0, stayed = 0;
  std::map<int64_t, int64_t> drawn;
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    const TaskRows rows = set->rows(visits(*set, epoch));
    const std::vector<int64_t> ids = unmasked(rows);
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool special = ids[i] == kStart || ids[i] == kEnd;  // padding too
      if (special) {
        EXPECT_EQ(rows.labels[i], kNoLabel);
        EXPECT_EQ(rows.ids[i], ids[i]);
        continue;
      }
      ++tokens;
      if (rows.labels[i] == kNoLabel) {
        EXPECT_EQ(rows.ids[i], ids[i]);
        continue;
      }
      ++chosen;
      if (rows.ids[i] == kMask) {
        ++masked;
      } else if (rows.ids[i] == ids[i]) {
        ++stayed;
      } else {
        ++random;
        ++drawn[rows.ids[i]];
      }
    }
  }
  EXPECT_GT(tokens, 500000);
  expect_share(chosen, tokens, kRate);
  expect_share(masked, chosen, 0.8);
  // A random token is the one that stood there once in 997.
  expect_share(stayed, chosen, 0.1 + 0.1 / 997);
  expect_share(random, chosen, 0.1 - 0.1 / 997);
  EXPECT_FALSE(drawn.contains(kStart) || drawn.contains(kEnd) || drawn.contains(kMask));
  EXPECT_GT(drawn.size(), 900U);
  EXPECT_GT(drawn.rbegin()->first, kMask);  // beyond the special ones, too
}

TEST(MaskedWindows, AreTheSameWhereverASampleIsVisited) {
  const auto bpe = tokenizer();
  const auto set = *windows({long_text()}, 64, *bpe);
  const TaskRows whole = set->rows(visits(*set, 3));
  for (const int64_t sample : {0, 1, 17}) {
    const TaskRows one = set->rows(std::vector<Visit>{{3, sample}});
    EXPECT_TRUE(std::ranges::equal(
        one.ids, std::span(whole.ids).subspan(static_cast<size_t>(sample * 64), 64)));
    EXPECT_TRUE(std::ranges::equal(
        one.labels, std::span(whole.labels).subspan(static_cast<size_t>(sample * 64), 64)));
  }
  EXPECT_EQ(unmasked(set->rows(visits(*set, 4))), unmasked(whole));
  EXPECT_NE(set->rows(visits(*set, 4)).labels, whole.labels);
  const auto other_seed = *windows({long_text()}, 64, *bpe, kRate, {18, 0});
  EXPECT_NE(other_seed->rows(visits(*set, 3)).labels, whole.labels);
  // What evaluates is masked alike, whatever the training's seed.
  EXPECT_EQ(other_seed->range(0, 9).labels, set->range(0, 9).labels);
  EXPECT_NE(set->range(0, set->samples()).labels, set->rows(visits(*set, 0)).labels);
}

TEST(MaskedWindows, NothingNeedBeChosen) {
  const auto bpe = tokenizer();
  const auto set = *windows({"ab"}, 8, *bpe, 1e-9);
  EXPECT_THAT(set->range(0, 1).labels, ::testing::Each(kNoLabel));
}

TEST(MaskedWindows, WhatCannotBeMaskedIsRefused) {
  const auto bytes = make_byte_tokenizer();
  EXPECT_EQ(
      windows({"ab"}, 8, *bytes).error().to_string(),
      "tokenizer must have a mask token for a masked_lm: mask_token in tokenizer_config.json, "
      "or a special token [MASK] or <mask> (got byte)");
  const auto bpe = tokenizer();
  EXPECT_THAT(windows({"ab"}, 2, *bpe).error().to_string(),
              HasSubstr("sequence_length must exceed the 2 tokens that the tokenizer puts around"));
  EXPECT_THAT(windows({"", ""}, 8, *bpe).error().to_string(), HasSubstr("the data is empty"));
}

TEST(MaskedWindows, TheMaskTokenIsNamedByTheConfiguration) {
  EXPECT_EQ(load(bpe_file())->mask_id(), kMask);
  EXPECT_EQ(load(bpe_file(), R"({"mask_token": "weft"})")->mask_id(), 998);
  EXPECT_THAT(load(bpe_file())->special_ids(), ElementsAre(995, 996, 997));
}

}  // namespace
}  // namespace weft
