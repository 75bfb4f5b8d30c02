// Unigram against encodings made by the `tokenizers` package; the normalizers that its files have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "proto/json/base64.h"
#include "tests/worker/data/tokenizer_fixtures.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

const json& unigram_file() {
  static const json kFile = json::parse(fixture("unigram_tokenizer.json"));
  return kFile;
}

// Few rules of SentencePiece's, as its trainer compiled them.
std::string charsmap() {
  std::string text = fixture("charsmap.txt");
  text.pop_back();  // the line's end
  return text;
}

json precompiled(const std::string& text) {
  return {{"type", "Precompiled"}, {"precompiled_charsmap", text}};
}

// The fixture has T5's sections, but NFKC for SentencePiece's rules.
json unigram_variant(const std::string& name) {
  json file = unigram_file();
  if (name == "charsmap") {
    const json strip = {{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}};
    file["normalizer"] = {{"type", "Sequence"},
                          {"normalizers", json::array({precompiled(charsmap()), strip,
                                                       replace("Regex", " {2,}", "\u2581")})}};
  } else if (name == "unknown") {
    file["model"]["byte_fallback"] = false;
    file["normalizer"] = nullptr;
    file["pre_tokenizer"] = metaspace("first", false);
  } else if (name == "white space") {
    file["normalizer"]["type"] = "NFKD";
    const json split = {{"type", "WhitespaceSplit"}};
    file["pre_tokenizer"] = {{"type", "Sequence"},
                             {"pretokenizers", json::array({split, file["pre_tokenizer"]})}};
  } else if (name == "nfd") {
    file["normalizer"]["type"] = "NFD";
  } else if (name == "nfc") {
    file["normalizer"]["type"] = "NFC";
  }
  return file;
}

TEST(Unigram, EachFixtureEncodesAndDecodesAlike) {
  std::map<std::string, std::unique_ptr<Tokenizer>> tokenizers;
  const auto cases = lines("unigram_cases.jsonl");
  EXPECT_GE(cases.size(), 400U);
  for (const json& expected : cases) {
    auto& tokenizer = tokenizers[expected.at("variant")];
    if (tokenizer == nullptr) tokenizer = load(unigram_variant(expected.at("variant")));
    expect_case(*tokenizer, expected);
  }
  EXPECT_EQ(tokenizers.size(), 6U);
  EXPECT_EQ(tokenizers["charsmap"]->type(), "unigram");
  EXPECT_EQ(tokenizers["charsmap"]->eos_id(), 1);
  EXPECT_EQ(tokenizers["charsmap"]->vocab_size(), 1000);
}

// The `tokenizers` package has the first of the two.
TEST(Unigram, ACharacterMadeOfSeveralComesFromAll) {
  const auto encoding = load(unigram_file())->encode_with_offsets("xe\u0301x", false);
  ASSERT_TRUE(encoding.has_value());
  ASSERT_GE(encoding->offsets.size(), 3U);
  const TokenOffsets last = encoding->offsets.back();
  const TokenOffsets joined = encoding->offsets[encoding->offsets.size() - 2];
  EXPECT_EQ(std::pair(joined.begin, joined.end), std::pair(int64_t{1}, int64_t{3}));
  EXPECT_EQ(std::pair(last.begin, last.end), std::pair(int64_t{3}, int64_t{4}));
}

json small_file(const json& vocab, const json& unknown = 0) {
  json file = unigram_file();
  file["added_tokens"] = json::array();
  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = nullptr;
  file["post_processor"] = nullptr;
  file["model"] = {{"type", "Unigram"}, {"unk_id", unknown}, {"vocab", vocab}};
  return file;
}

using Ids = std::vector<int64_t>;

// The example of the `tokenizers` package, and what its code makes of ties: the way that was found
// first, whose last piece begins first.
TEST(Unigram, TheBestSumWinsAndOfTiesTheFirst) {
  const auto example =
      load(small_file(json::parse(R"([["<unk>",0],["a",0],["b",0],["c",0],["d",0],["cd",1],)"
                                  R"(["ab",2],["abc",5],["abcd",10]])")));
  EXPECT_EQ(*example->encode("abcdacdxx", false), (Ids{8, 1, 5, 0}));
  const auto ties =
      load(small_file(json::parse(R"([["<unk>",0],["a",-1],["b",-1],["ab",-2],["ba",-2]])")));
  EXPECT_EQ(*ties->encode("ab", false), Ids{3});
  EXPECT_EQ(*ties->encode("aba", false), (Ids{1, 4}));
}

// Two unknown characters score more than the piece that they are: with scores above the penalty.
TEST(Unigram, UnknownNeighboursAreTheirPiece) {
  const auto high = load(small_file(json::parse(R"([["<unk>",100],["xy",100],["a",100]])")));
  EXPECT_EQ(*high->encode("axya", false), (Ids{2, 1, 2}));
  EXPECT_EQ(*high->encode("axyxa", false), (Ids{2, 0, 2}));
}

TEST(Unigram, OfPiecesThatAreAlikeTheLastCounts) {
  const auto twice = load(small_file(json::parse(R"([["<unk>",0],["a",-1],["a",-2]])")));
  EXPECT_EQ(*twice->encode("aa", false), (Ids{2, 2}));
  EXPECT_EQ(twice->decode(Ids{1, 2}, {}), "aa");
}

// A stretch without white space is one word, and takes time by its length.
TEST(Unigram, ALongDocumentIsOneWord) {
  json file = unigram_variant("unknown");
  const auto tokenizer = load(file);
  std::string text;
  while (text.size() < size_t{4} << 20) text += "thethey\u00e9\u4e2d";
  const auto ids = tokenizer->encode(text, false);
  ASSERT_TRUE(ids.has_value()) << ids.error().to_string();
  EXPECT_GT(ids->size(), text.size() / 16);
  const auto large = tokenizer->encode(std::string((size_t{16} << 20) + 1, 'x'), false);
  ASSERT_FALSE(large.has_value());
  EXPECT_THAT(large.error().to_string(), HasSubstr("16 MiB"));
}

// Marks in the wrong order, which sorting neighbour by neighbour takes the square of.
TEST(Unigram, ALongRunOfMarksIsSorted) {
  std::string marks = "a", sorted = "a";
  for (int i = 0; i < 300000; ++i) marks += "\u0301\u0323";
  for (int i = 0; i < 300000; ++i) sorted += "\u0323";
  for (int i = 0; i < 300000; ++i) sorted += "\u0301";
  json file = small_file(json::parse(R"([["<unk>",0],["a",-1],["\u0301",-1],["\u0323",-1]])"));
  const auto plain = load(file);
  file["normalizer"] = {{"type", "NFKD"}};
  EXPECT_EQ(*load(file)->encode(marks, false), *plain->encode(sorted, false));
}

// A mark of Unicode 14, which the `tokenizers` package leaves where it is: the one behind it, of a
// lower class, is not sorted in front.
TEST(Unigram, ALaterMarkStaysWhereItIs) {
  json file = small_file(json::parse(R"([["<unk>",0],["\u1ace",-1],["\u0323",-1],["a",-1]])"));
  file["normalizer"] = {{"type", "NFC"}};
  EXPECT_EQ(*load(file)->encode("a\u1ace\u0323", false), (Ids{3, 1, 2}));
}

// As the `tokenizers` package has it: signs of enclosing and of width are marks, too, those of
// Unicode 14 are none, and two that are letters now are; a composed character has no mark.
TEST(Unigram, AccentsAndCapitalsAreLeftOut) {
  json file = small_file(json::parse(R"([["<unk>",0],["a",-1],["\u00e9",-1],["\u1ace",-1],)"
                                     R"(["i",-1],["\u0307",-1],["\u03c3",-1]])"));
  file["normalizer"] = {{"type", "StripAccents"}};
  const auto stripped = load(file)->encode("a\u0301\u20dd\u0903\u1cf2\u00e9\u1ace", false);
  EXPECT_EQ(*stripped, (Ids{1, 2, 3}));
  file["normalizer"] = {{"type", "Lowercase"}};
  EXPECT_EQ(*load(file)->encode("A\u00c9\u0130\u03a3", false), (Ids{1, 2, 4, 5, 6}));
  file["normalizer"]["locale"] = "tr";
  const auto refused = load_tokenizer_json(file.dump());
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().to_string(), HasSubstr("locale"));
}

TEST(Unigram, ALackingCharacterIsAnErrorWithoutUnknownToken) {
  const auto tokenizer = load(small_file(json::parse(R"([["a",-1],["b\u00e9b",-1]])"), nullptr));
  EXPECT_EQ(*tokenizer->encode("aa", false), (Ids{0, 0}));
  for (const char* text : {"a\U0001F642", "\U0001F642"}) {
    const auto ids = tokenizer->encode(text, false);
    ASSERT_FALSE(ids.has_value());
    EXPECT_THAT(ids.error().to_string(), HasSubstr("U+1F642 and has no unk_id"));
  }
}

std::string unigram_refusal(const char* pointer, const json& value) {
  json file = unigram_variant("charsmap");
  file[json::json_pointer(pointer)] = value;
  const auto tokenizer = load_tokenizer_json(file.dump());
  return tokenizer ? "accepted" : tokenizer.error().to_string();
}

TEST(Unigram, WhatItIsNotIsNamed) {
  EXPECT_EQ(unigram_refusal("/model/unk_id", nullptr), "accepted");
  EXPECT_EQ(unigram_refusal("/model/vocab/7/1", -3), "accepted");
  EXPECT_THAT(unigram_refusal("/model/unk_id", 1000), HasSubstr("in [0, 999], or null"));
  EXPECT_THAT(unigram_refusal("/model/unk_id", -1), HasSubstr("model.unk_id"));
  EXPECT_THAT(unigram_refusal("/model/unk_id", "<unk>"), HasSubstr("model.unk_id"));
  EXPECT_THAT(unigram_refusal("/model/vocab", json::array()), HasSubstr("model.vocab"));
  EXPECT_THAT(unigram_refusal("/model/vocab", json::object()), HasSubstr("a piece or more"));
  EXPECT_THAT(unigram_refusal("/model/vocab/7", "x"), HasSubstr("model.vocab[7]"));
  EXPECT_THAT(unigram_refusal("/model/vocab/7/0", 1), HasSubstr("model.vocab[7][0]"));
  EXPECT_THAT(unigram_refusal("/model/vocab/7/1", "-1"), HasSubstr("model.vocab[7][1]"));
  EXPECT_THAT(unigram_refusal("/model/byte_fallback", 1), HasSubstr("model.byte_fallback"));
  EXPECT_THAT(unigram_refusal("/model/merges", 1), HasSubstr("model.merges"));
  EXPECT_THAT(unigram_refusal("/pre_tokenizer", {{"type", "ByteLevel"}}), HasSubstr("BPE"));
  EXPECT_THAT(unigram_refusal("/normalizer/normalizers/1/strip_left", 1), HasSubstr("strip_left"));
  const json split = {{"type", "WhitespaceSplit"}};
  EXPECT_THAT(unigram_refusal("/pre_tokenizer", split), HasSubstr("WhitespaceSplit"));
  EXPECT_THAT(unigram_refusal("/pre_tokenizer",
                              {{"type", "Sequence"},
                               {"pretokenizers", json::array({split, {{"type", "ByteLevel"}}})}}),
              HasSubstr("behind WhitespaceSplit"));
  EXPECT_THAT(unigram_refusal("/pre_tokenizer",
                              {{"type", "Sequence"},
                               {"pretokenizers", json::array({split, metaspace("first", true)})}}),
              HasSubstr("pretokenizers[1].prepend_scheme"));
}

TEST(Unigram, ABrokenCharsmapIsRefused) {
  const std::string whole = *base64_decode(charsmap());
  const auto refusal = [](const std::string& bytes) {
    return unigram_refusal("/normalizer", precompiled(base64_encode(bytes)));
  };
  const auto size = static_cast<unsigned char>(whole[0]) |
                    static_cast<size_t>(static_cast<unsigned char>(whole[1])) << 8;
  EXPECT_EQ(refusal(whole), "accepted");
  EXPECT_THAT(unigram_refusal("/normalizer", precompiled("*")), HasSubstr("must be Base64"));
  EXPECT_THAT(unigram_refusal("/normalizer", {{"type", "Precompiled"}}),
              HasSubstr("normalizer.precompiled_charsmap"));
  EXPECT_THAT(refusal(""), HasSubstr("4 bytes"));
  EXPECT_THAT(refusal(whole.substr(0, size)), HasSubstr("it ends after"));
  EXPECT_THAT(refusal(whole.substr(0, size + 4)), HasSubstr("begin in its texts"));
  EXPECT_THAT(refusal(std::string("\3\0\0\0abc", 7)), HasSubstr("multiple of 4"));
  EXPECT_THAT(refusal(std::string(8, '\0')), HasSubstr("multiple of 4"));
  EXPECT_THAT(refusal(whole + "\xC3"), HasSubstr("UTF-8"));
  std::string beyond = whole;
  beyond.replace(4, 4, std::string("\0\1\xFF\x7F", 4));  // the root, whose leaf is far away
  EXPECT_THAT(refusal(beyond), HasSubstr("each leaf"));
}

}  // namespace
}  // namespace weft
