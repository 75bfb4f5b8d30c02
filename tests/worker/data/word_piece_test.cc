// WordPiece against encodings made by the `tokenizers` package.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/data/tokenizer_fixtures.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

json word_piece_file() { return json::parse(fixture("word_piece_tokenizer.json")); }

std::string refusal(const json& file) {
  const auto tokenizer = load_tokenizer_json(file.dump());
  return tokenizer ? "accepted" : tokenizer.error().to_string();
}

TEST(WordPiece, EncodesAndDecodesAsTheFixture) {
  const auto tokenizer = load(word_piece_file(), R"({"pad_token": "[PAD]"})");
  EXPECT_EQ(tokenizer->type(), "word_piece");
  EXPECT_EQ(tokenizer->pad_id(), 0);
  const auto cases = lines("word_piece_cases.jsonl");
  EXPECT_GE(cases.size(), 100U);
  for (const json& expected : cases) expect_case(*tokenizer, expected);
}

TEST(WordPiece, AWordBeyondTheBoundIsUnknown) {
  json file = word_piece_file();
  file["model"]["max_input_chars_per_word"] = 4;
  const auto tokenizer = load(file);
  const int64_t unknown = file["model"]["vocab"]["[UNK]"];
  EXPECT_EQ(*tokenizer->encode("\u00e4\u00e4\u00e4\u00e4\u00e4", false),
            std::vector<int64_t>{unknown});
  EXPECT_NE(*tokenizer->encode("abcd", false), std::vector<int64_t>{unknown});
}

TEST(WordPiece, WhatItIsNotIsNamed) {
  const auto changed = [](const char* pointer, const json& value) {
    json file = word_piece_file();
    file[json::json_pointer(pointer)] = value;
    return refusal(file);
  };
  EXPECT_THAT(changed("/model/unk_token", "<none>"), HasSubstr("model.unk_token"));
  EXPECT_THAT(changed("/model/max_input_chars_per_word", 1001), HasSubstr("[0, 1000]"));
  EXPECT_THAT(changed("/model/continuing_subword_prefix", nullptr),
              HasSubstr("continuing_subword_prefix"));
  EXPECT_THAT(changed("/model/type", "WordLevel"), HasSubstr("BPE, WordPiece or Unigram"));
  EXPECT_THAT(changed("/normalizer/lowercase", 1), HasSubstr("normalizer.lowercase"));
  EXPECT_THAT(changed("/pre_tokenizer/regex", 1), HasSubstr("pre_tokenizer.regex"));
  EXPECT_THAT(changed("/decoder/prefix", 7), HasSubstr("decoder.prefix"));
  EXPECT_THAT(changed("/pre_tokenizer", {{"type", "ByteLevel"}}), HasSubstr("ByteLevel"));
  const json pair = {{"type", "BertProcessing"}, {"sep", {"[SEP]", 3}}, {"cls", {"[CLS]", 2}}};
  EXPECT_EQ(changed("/post_processor", pair), "accepted");
  json beyond = pair;
  beyond["sep"][1] = 5000;
  EXPECT_THAT(changed("/post_processor", beyond), HasSubstr("post_processor.sep"));
}

}  // namespace
}  // namespace weft
