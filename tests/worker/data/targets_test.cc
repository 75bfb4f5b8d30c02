// Texts and the texts that are written for them: what is put around, cuts, padding.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/data/tokenizer_fixtures.h"
#include "worker/data/dataset.h"

namespace weft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Row {
  std::string text, target;
};

Result<std::shared_ptr<const Dataset>> load_rows(const Tokenizer& tokenizer,
                                                 const std::vector<Row>& rows, int64_t length,
                                                 int64_t target_length) {
  DatasetOptions options;
  options.kind = SampleKind::kSeq2Seq;
  options.source.pair_key = "summary";
  options.sequence_length = length;
  options.target_length = target_length;
  const auto documents = [&](const std::function<Status(const Document&)>& visit) -> Status {
    int64_t line = 0;
    for (const Row& row : rows) {
      Document document;
      document.text = row.text;
      document.pair = row.target;
      document.file = "rows.jsonl";
      document.line = ++line;
      WEFT_RETURN_IF_ERROR(visit(document));
    }
    return {};
  };
  return Dataset::load(documents, options, tokenizer);
}

TEST(Targets, EndAndArePaddedForThemselves) {
  const auto tokenizer = make_byte_tokenizer();  // puts nothing around; 256 ends a text
  const auto data = *load_rows(*tokenizer, {{"abcdefghij", "xy"}, {"a", "xyz"}}, 64, 32);
  EXPECT_EQ(data->samples(), 2);
  EXPECT_EQ(data->rows_per_sample(), 1);
  EXPECT_EQ(data->tokens(), 10 + 3 + 1 + 4);
  const TaskRows rows = data->range(0, 2);
  EXPECT_EQ(rows.tokens, 16) << "ten, to a multiple of eight";
  EXPECT_EQ(rows.target_tokens, 8);
  constexpr int64_t kNone = kNoLabel;
  EXPECT_THAT(rows.labels, ElementsAre('x', 'y', 256, kNone, kNone, kNone, kNone, kNone, 'x', 'y',
                                       'z', 256, kNone, kNone, kNone, kNone));
  EXPECT_EQ(rows.ids[9], 'j');
  EXPECT_EQ(rows.valid[9], 1);
  EXPECT_EQ(rows.valid[10], 0) << "a source has no end where the tokenizer puts none";
  EXPECT_EQ(rows.valid[16], 1);
  EXPECT_EQ(rows.valid[17], 0);
  const std::vector<Visit> turned{{0, 1}, {0, 0}};
  EXPECT_EQ(data->rows(turned).labels[2], 'z');
}

TEST(Targets, WhatIsTooLongIsCutBeforeItsEnd) {
  const auto tokenizer = make_byte_tokenizer();
  const auto data = *load_rows(*tokenizer, {{"abcdefghij", "uvwxyz"}, {"a", "b"}}, 5, 4);
  const TaskRows rows = data->range(0, 1);
  EXPECT_EQ(rows.tokens, 5);
  EXPECT_THAT(rows.ids, ElementsAre('a', 'b', 'c', 'd', 'e'));
  EXPECT_TRUE(rows.valid.empty());
  EXPECT_THAT(rows.labels, ElementsAre('u', 'v', 'w', 256));
  EXPECT_EQ(data->dropped_tokens(0), 5 + 3);
  EXPECT_EQ(data->dropped_tokens(1), 0);
}

TEST(Targets, AreFramedAsSourcesAre) {
  json file = json::parse(fixture("bpe_tokenizer.json"));
  file["post_processor"] = {
      {"type", "RobertaProcessing"}, {"cls", {"<|endoftext|>", 995}}, {"sep", {"<|pad|>", 996}}};
  const auto tokenizer = load(file);
  const auto data = *load_rows(*tokenizer, {{"the king", "the man"}}, 64, 64);
  const TaskRows rows = data->range(0, 1);
  const std::vector<int64_t> source = *tokenizer->encode("the king", true);
  EXPECT_TRUE(std::equal(source.begin(), source.end(), rows.ids.begin()));
  std::vector<int64_t> target = *tokenizer->encode("the man", true);
  if (const auto end = tokenizer->eos_id(); end && target.back() != *end) target.push_back(*end);
  EXPECT_TRUE(std::equal(target.begin(), target.end(), rows.labels.begin()));
  EXPECT_EQ(rows.labels[target.size()], kNoLabel);
}

TEST(Targets, OneWithoutRoomBesideItsEndIsRefused) {
  const auto tokenizer = make_byte_tokenizer();
  const auto data = load_rows(*tokenizer, {{"a", "b"}}, 8, 1);
  ASSERT_FALSE(data);
  EXPECT_EQ(data.error().field(), "target_length");
  EXPECT_THAT(data.error().rule(), HasSubstr("must exceed the 1 tokens that the tokenizer puts"));
  EXPECT_TRUE(load_rows(*tokenizer, {{"a", "b"}}, 8, 2));
}

TEST(Targets, AnEmptyOneIsRefused) {
  const auto tokenizer = make_byte_tokenizer();
  const auto data = load_rows(*tokenizer, {{"a", "b"}, {"a", ""}}, 8, 8);
  ASSERT_FALSE(data);
  EXPECT_THAT(data.error().to_string(), HasSubstr("rows.jsonl line 2"));
  EXPECT_THAT(data.error().to_string(), HasSubstr("summary"));
}

}  // namespace
}  // namespace weft
