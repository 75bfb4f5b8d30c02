// BPE over characters against encodings made by the `tokenizers` package, long texts, streams.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/worker/data/tokenizer_fixtures.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

// The fixture is as Llama 2's tokenizer.json is today; the others are what older and other files
// have.
json character_variant(const std::string& name) {
  json file = character_file();
  if (name != "first" && name != "converted") {
    const auto token = [](int id, const char* content, const char* flag, bool special) {
      json entry = {{"id", id}, {"content", content}, {"special", special}};
      entry["normalized"] = !special;
      entry[flag] = true;
      return entry;
    };
    file["added_tokens"].push_back(token(1000, "<mask>", "lstrip", true));
    file["added_tokens"].push_back(token(1001, "weft", "single_word", false));
    file["added_tokens"].push_back(token(1002, "foo bar", "rstrip", false));
  }
  const json spaces = replace("String", " ", "\u2581");
  const auto normalizers = [](const json& list) {
    return json{{"type", "Sequence"}, {"normalizers", list}};
  };
  if (name == "legacy") {
    const json prepend = {{"type", "Prepend"}, {"prepend", "\u2581"}};
    file["normalizer"] = normalizers(json::array({prepend, spaces}));
    file["pre_tokenizer"] = nullptr;
  } else if (name == "split") {
    file["pre_tokenizer"] = {
        {"type", "Metaspace"}, {"replacement", "\u2581"}, {"add_prefix_space", true}};
    file["decoder"] = file["pre_tokenizer"];
  } else if (name == "unknown") {
    file["model"]["byte_fallback"] = false;
    file["pre_tokenizer"] = metaspace("never", true);
  } else if (name.starts_with("strip")) {  // white space, of which no token has any
    file["added_tokens"][5]["content"] = "QQ";
    if (name == "strip and begin") file["pre_tokenizer"] = metaspace("always", true);
  } else if (name == "converted") {
    const json first = replace("Regex", "\\A\u2581", "\u2581\u2581");
    file["normalizer"] = normalizers(json::array({spaces, first}));
    file["pre_tokenizer"] = {{"type", "Sequence"},
                             {"pretokenizers", json::array({metaspace("always", false)})}};
  }
  return file;
}

TEST(CharacterBpe, EachFixtureEncodesAndDecodesAlike) {
  std::map<std::string, std::unique_ptr<Tokenizer>> tokenizers;
  const auto cases = lines("character_cases.jsonl");
  EXPECT_GE(cases.size(), 300U);
  for (const json& expected : cases) {
    auto& tokenizer = tokenizers[expected.at("variant")];
    if (tokenizer == nullptr) tokenizer = load(character_variant(expected.at("variant")));
    expect_case(*tokenizer, expected);
  }
  EXPECT_EQ(tokenizers["first"]->type(), "character_bpe");
  EXPECT_EQ(tokenizers["first"]->eos_id(), 2);
  EXPECT_EQ(tokenizers["first"]->vocab_size(), 1000);
  EXPECT_EQ(tokenizers["legacy"]->vocab_size(), 1003);
}

// Cut where nothing joins, a document has the ids of its whole: the seams stand where no merge has
// the letters on both sides.
TEST(CharacterBpe, ALongDocumentHasTheIdsOfItsWords) {
  const auto tokenizer = load(character_file());
  std::string text;
  std::vector<int64_t> words;
  for (int i = 0; i < 20000; ++i) {
    const std::string word = i % 7 == 0 ? "\U0001F642s" : i % 3 == 0 ? "the" : "friend";
    text += (i == 0 ? "" : " ") + word;
    const auto ids = *tokenizer->encode(word, false);
    words.insert(words.end(), ids.begin(), ids.end());
  }
  EXPECT_EQ(*tokenizer->encode(text, false), words);
  EXPECT_EQ(tokenizer->decode(words, {}), text);
  for (const char* letter : {"e", " ", "\u00e9", "\U0001F642"}) {
    std::string run;
    while (run.size() < 300000) run += letter;
    const auto ids = tokenizer->encode(run, false);
    ASSERT_TRUE(ids.has_value()) << ids.error().to_string();
    const bool space = *letter == ' ';  // the first is taken for one that was put in front
    EXPECT_EQ(tokenizer->decode(*ids, {.continues = space}), run);
  }
}

// A cut comes 64 KiB into a text, in front of `at` of these bytes, all of which have something that
// a cut in the wrong place would change; what surrounds them cannot be cut.
std::string around_a_cut(size_t at) {
  const std::string bytes =
      "the weft foo bar  of wefts, weft. x <mask> y  a\u2581b  q\u00e9! QQ   u weft";
  const size_t before = (size_t{64} << 10) - at;
  std::string text(before % 4, 'x');
  while (text.size() < before) text += "\U0001F642";
  text += bytes;
  for (int i = 0; i < 100; ++i) text += "\U0001F642";
  return text;
}

// encode() cuts long texts into pieces, encode_with_offsets() does not.
TEST(CharacterBpe, APieceOfALongTextHasItsIds) {
  for (const char* variant :
       {"first", "legacy", "split", "unknown", "strip", "strip and begin"}) {
    const auto tokenizer = load(character_variant(variant));
    for (size_t at = 0; at < 80; ++at) {
      const std::string text = around_a_cut(at);
      const auto whole = tokenizer->encode_with_offsets(text, true);
      ASSERT_TRUE(whole.has_value()) << whole.error().to_string();
      EXPECT_EQ(*tokenizer->encode(text, true), whole->ids) << variant << " " << at;
    }
  }
}

TEST(CharacterBpe, ALongTextComesPieceByPiece) {
  std::string text;
  while (text.size() < size_t{1} << 20) text += "The friend of a weft has 12 letters.\n";
  for (const char* variant : {"first", "legacy", "split", "unknown"}) {
    const auto tokenizer = load(character_variant(variant));
    std::vector<int64_t> ids;
    size_t largest = 0;
    const Status status = tokenizer->encode_to(text, true, [&](std::span<const int32_t> piece) {
      ids.insert(ids.end(), piece.begin(), piece.end());
      largest = std::max(largest, piece.size());
    });
    ASSERT_TRUE(status.ok()) << status.to_string();
    EXPECT_EQ(ids, tokenizer->encode_with_offsets(text, true)->ids) << variant;
    EXPECT_GT(ids.size(), 250000U) << variant;
    EXPECT_LT(largest, 130000U) << variant;
  }
}

// Bytes that may yet form characters wait; what is settled is the start of what comes.
TEST(CharacterBpe, SettledTextIsNeverTakenBack) {
  for (const char* variant : {"first", "split"}) {
    const auto tokenizer = load(character_variant(variant));
    const int64_t x = 320, byte = 3;  // "x", and "<0x00>", which the other bytes follow
    const std::vector<int64_t> ids = {x,           byte + 0xC3, byte + 0xA9, byte + 0xC3, x,
                                      byte + 0xE2, byte + 0x82, 2,           byte + 0xAC, x};
    const std::string whole = tokenizer->decode(ids, {.skip_special = true});
    std::vector<size_t> settled;
    for (size_t count = 0; count <= ids.size(); ++count) {
      const auto text =
          tokenizer->decode(std::span(ids).first(count), {.skip_special = true, .settled = true});
      EXPECT_TRUE(whole.starts_with(text)) << text;
      settled.push_back(text.size());
    }
    if (std::string_view(variant) == "split") continue;  // its decoder knows no bytes
    EXPECT_EQ(whole, "x\uFFFD\uFFFD\uFFFDx\u20ACx");
    EXPECT_EQ(settled, (std::vector<size_t>{0, 1, 1, 1, 1, 11, 11, 11, 11, 11, 15}));
  }
}

// A token that a decoder makes a byte waits as one.
TEST(CharacterBpe, ABytesNameThatADecoderMakesIsNotSettled) {
  json file = character_file();
  json& steps = file["decoder"]["decoders"];
  steps.insert(steps.begin(), replace("String", "w", "<0x41>"));
  const auto tokenizer = load(file);
  const int64_t x = 320, w = 319, byte = 3;
  const std::vector<int64_t> ids = {x, w, byte + 0xA9, x};
  const std::string whole = tokenizer->decode(ids, {});
  EXPECT_EQ(whole, "x\uFFFD\uFFFDx");  // "A" but for the byte behind it
  for (size_t count = 0; count <= ids.size(); ++count) {
    const auto text = tokenizer->decode(std::span(ids).first(count), {.settled = true});
    EXPECT_TRUE(whole.starts_with(text)) << text;
  }
  steps.push_back({{"type", "ByteFallback"}});
  steps.erase(steps.size() - 3);  // Fuse, behind which nothing else may stand
  const auto refused = load_tokenizer_json(file.dump());
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().to_string(), HasSubstr("must stand in the decoder once"));
}

TEST(CharacterBpe, ALackingCharacterIsAnErrorWithoutUnknownToken) {
  json file = character_file();
  file["model"]["byte_fallback"] = false;
  file["model"]["unk_token"] = nullptr;
  const auto ids = load(file)->encode("a\U0001F642", false);
  ASSERT_FALSE(ids.has_value());
  EXPECT_THAT(ids.error().to_string(), HasSubstr("U+1F642"));
}

TEST(CharacterBpe, ASentencePieceModelIsToldHowToConvert) {
  const auto loaded = load_tokenizer_json("\n\x0e\n\x05<unk>\x15");
  ASSERT_FALSE(loaded.has_value());
  EXPECT_THAT(loaded.error().to_string(), HasSubstr("AutoTokenizer.from_pretrained"));
}

}  // namespace
}  // namespace weft
