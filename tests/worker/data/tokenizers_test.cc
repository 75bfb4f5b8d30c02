// Tokenizers against encodings made by the `tokenizers` package (fixtures/), and against hostile
// files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/worker/data/tokenizer_fixtures.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

TEST(ByteLevelBpe, EachFixtureEncodesAndDecodesAlike) {
  const auto tokenizer = load(bpe_file());
  const auto cases = lines("bpe_cases.jsonl");
  EXPECT_GE(cases.size(), 100U);
  for (const json& expected : cases) expect_case(*tokenizer, expected);
  EXPECT_EQ(tokenizer->eos_id(), 995);
  EXPECT_EQ(tokenizer->vocab_size(), 1000);
}

// NFC, a pattern of its own before ByteLevel, merges as strings, whole words first, a template.
TEST(ByteLevelBpe, SplitNfcAndTemplateEncodeAlike) {
  json file = bpe_file();
  file["normalizer"] = {{"type", "NFC"}};
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const char* pattern = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                        R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers", json::array({split, byte_level})}};
  const auto special = [](const char* id) {
    return json{{"SpecialToken", {{"id", id}, {"type_id", 0}}}};
  };
  const json sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  file["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", json::array({special("<|endoftext|>"), sequence, special("<|pad|>")})},
      {"pair", json::array()},
      {"special_tokens", {{"<|endoftext|>", {{"ids", {995}}}}, {"<|pad|>", {{"ids", {996}}}}}}};
  file["model"]["ignore_merges"] = true;
  json merges = json::array();
  for (const json& merge : file["model"]["merges"]) {
    merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  file["model"]["merges"] = merges;
  const auto tokenizer = load(file);
  for (const json& expected : lines("split_cases.jsonl")) {
    const std::string text = expected.at("text");
    const auto ids = tokenizer->encode(text, true);
    ASSERT_TRUE(ids.has_value()) << ids.error().to_string();
    EXPECT_EQ(json(*ids), expected.at("ids")) << expected;
    const auto encoding = tokenizer->encode_with_offsets(text, true);
    ASSERT_TRUE(encoding.has_value());
    EXPECT_EQ(json(encoding->ids), expected.at("ids"));
    EXPECT_EQ(tokenizer->encode(text, false)->size() + 2, ids->size());
  }
}

// ids and offsets as JSON.
void expect_encoding(const json& file, const std::string& text, const char* ids,
                     const char* offsets) {
  const auto encoding = load(file)->encode_with_offsets(text, true);
  ASSERT_TRUE(encoding.has_value()) << encoding.error().to_string();
  EXPECT_EQ(json(encoding->ids), json::parse(ids)) << text;
  json found = json::array();
  for (const TokenOffsets& at : encoding->offsets) found.push_back({at.begin, at.end});
  EXPECT_EQ(found, json::parse(offsets)) << text;
}

// A space in front of each stretch between added tokens, whose offsets leave it out again.
TEST(ByteLevelBpe, OffsetsOfASpacePutInFront) {
  json file = bpe_file();
  file["pre_tokenizer"]["add_prefix_space"] = true;
  file["post_processor"]["add_prefix_space"] = false;
  file["post_processor"]["trim_offsets"] = true;
  expect_encoding(file, "weft\u00b2", "[998, 220, 126, 110]", "[[0, 4], [5, 5], [4, 5], [4, 5]]");
}

// A space in front of each piece that Digits and Split cut out, its offsets within the piece.
TEST(ByteLevelBpe, DigitsAndSplitBeforeASpacePutInFront) {
  json file = bpe_file();
  file["pre_tokenizer"]["add_prefix_space"] = true;
  file["post_processor"]["trim_offsets"] = true;
  const auto cut_by = [&](const json& step) {
    json cut = file;
    cut["pre_tokenizer"] = {{"type", "Sequence"},
                            {"pretokenizers", json::array({step, file["pre_tokenizer"]})}};
    return cut;
  };
  json digits = {{"type", "Digits"}, {"individual_digits", true}};
  expect_encoding(
      cut_by(digits), "\u00e912\u00b2 x", "[765, 102, 220, 16, 220, 17, 220, 126, 110, 220, 87]",
      "[[0, 1], [0, 1], [2, 2], [1, 2], [3, 3], [2, 3], [4, 4], [3, 4], [3, 4], [5, 5], [5, 6]]");
  digits["individual_digits"] = false;
  expect_encoding(cut_by(digits), "\u00e912\u00b2 x", "[765, 102, 220, 16, 17, 126, 110, 220, 87]",
                  "[[0, 1], [0, 1], [2, 2], [1, 2], [2, 3], [3, 4], [3, 4], [5, 5], [5, 6]]");
  const json hyphens = {{"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", "Removed"}};
  expect_encoding(cut_by(hyphens), "- a-b", "[259, 266]", "[[1, 3], [5, 5]]");
}

// Of several spaces at the start of the text, none was put there; a token that takes white space
// along has it trimmed as others.
TEST(ByteLevelBpe, TrimmedOffsetsOfAddedTokens) {
  json file = bpe_file();
  file["post_processor"]["trim_offsets"] = true;
  file["added_tokens"][3]["lstrip"] = true;  // looked for after normalization
  file["added_tokens"][3]["single_word"] = false;
  expect_encoding(file, "\u3000<mask>", "[997]", "[[0, 7]]");
  expect_encoding(file, "\t\u3000<mask>", "[997]", "[[2, 8]]");
  expect_encoding(file, "a \t<mask>", "[64, 997]", "[[0, 1], [3, 9]]");
  expect_encoding(file, "foo bar\t", "[999]", "[[0, 7]]");
  expect_encoding(file, " \tweft", "[998]", "[[2, 6]]");
  expect_encoding(file, "a  weft", "[64, 998]", "[[0, 1], [3, 7]]");
  expect_encoding(file, "  \u00e9", "[220, 765, 102]", "[[0, 0], [2, 3], [2, 3]]");
}

TEST(ByteLevelBpe, SpecialTokensComeFromTheConfiguration) {
  const std::string config = R"({"eos_token":{"content":"<mask>"},"pad_token":"<|pad|>"})";
  const auto tokenizer = load(bpe_file(), config);
  EXPECT_EQ(tokenizer->eos_id(), 997);
  EXPECT_EQ(tokenizer->pad_id(), 996);
  EXPECT_FALSE(tokenizer->bos_id().has_value());
  const auto wrong = load_tokenizer_json(bpe_file().dump(), R"({"eos_token":"<none>"})");
  ASSERT_FALSE(wrong.has_value());
  EXPECT_THAT(wrong.error().to_string(), HasSubstr("eos_token"));
}

// transformers writes its "no limit", 10^30, as an integer.
TEST(ByteLevelBpe, AConfigurationAsTransformersSavesIt) {
  const auto tokenizer = load(bpe_file(), R"({"eos_token": "<|endoftext|>",
      "model_max_length": 1000000000000000019884624838656})");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_FALSE(load_tokenizer_json(bpe_file().dump(), R"({"model_max_length": 1e999})"));
}

TEST(ByteLevelBpe, LongWordsAndBadTextEnd) {
  const auto tokenizer = load(bpe_file());
  const std::string word(300000, 'e');
  const auto ids = tokenizer->encode(word, false);
  ASSERT_TRUE(ids.has_value()) << ids.error().to_string();
  EXPECT_EQ(tokenizer->decode(*ids, {}), word);
  const auto bad = tokenizer->encode("ab\xff", false);
  ASSERT_FALSE(bad.has_value());
  EXPECT_THAT(bad.error().to_string(), HasSubstr("byte 2"));
  EXPECT_EQ(tokenizer->decode(std::vector<int64_t>{-1, 5000, INT64_MAX, 64}, {}), "a");
}

TEST(ByteLevelBpe, APatternThatBacktracksWithoutEndIsAnError) {
  json file = bpe_file();
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", "(a|a)*(a|a)*(a|a)*b"}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers", json::array({split, bpe_file()["pre_tokenizer"]})}};
  const auto tokenizer = load(file);
  const auto ids = tokenizer->encode(std::string(40, 'a') + "c b", false);
  ASSERT_FALSE(ids.has_value());
  EXPECT_THAT(ids.error().to_string(), HasSubstr("limit"));
}

struct Hostile {
  const char* pointer;  // what is replaced
  const char* value;
  const char* expected;
};
class HostileTokenizer : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileTokenizer, IsRefusedByTheNameOfTheField) {
  json file = bpe_file();
  file[json::json_pointer(GetParam().pointer)] = json::parse(GetParam().value);
  const auto tokenizer = load_tokenizer_json(file.dump());
  ASSERT_FALSE(tokenizer.has_value());
  EXPECT_THAT(tokenizer.error().to_string(), HasSubstr(GetParam().expected));
}

class HostileCharacters : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileCharacters, AreRefusedByTheNameOfTheField) {
  json file = character_file();
  file[json::json_pointer(GetParam().pointer)] = json::parse(GetParam().value);
  const auto tokenizer = load_tokenizer_json(file.dump());
  ASSERT_FALSE(tokenizer.has_value());
  EXPECT_THAT(tokenizer.error().to_string(), HasSubstr(GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(
    Table, HostileCharacters,
    ::testing::Values(
        Hostile{"/normalizer", R"({"type":"Prepend"})", "normalizer.prepend"},
        Hostile{"/normalizer", R"({"type":"Prepend","prepend":""})", "must not be empty"},
        Hostile{"/normalizer", R"({"type":"Replace","pattern":{"String":""},"content":"a"})",
                "normalizer.pattern"},
        Hostile{"/normalizer", R"({"type":"Replace","pattern":{"Regex":"(a"},"content":"a"})",
                "normalizer.pattern"},
        Hostile{"/normalizer", R"({"type":"Replace","pattern":{},"content":"a"})",
                "one of Regex and String"},
        Hostile{"/normalizer", R"({"type":"Replace","pattern":{"String":"a"},"content":""})",
                "normalizer.content"},
        Hostile{"/normalizer", R"({"type":"Replace","pattern":{"String":"a"}})",
                "normalizer.content"},
        Hostile{"/pre_tokenizer/replacement", "\"ab\"", "must be one character"},
        Hostile{"/pre_tokenizer/replacement", "\"\"", "pre_tokenizer.replacement"},
        Hostile{"/pre_tokenizer/prepend_scheme", "\"last\"", "always, first or never"},
        Hostile{"/pre_tokenizer/split", "1", "pre_tokenizer.split"},
        Hostile{"/pre_tokenizer/add_prefix_space", "false", "pre_tokenizer.add_prefix_space"},
        Hostile{"/pre_tokenizer/surprise", "1", "pre_tokenizer.surprise"},
        Hostile{"/pre_tokenizer/type", "\"WhitespaceSplit\"", "WhitespaceSplit"},
        Hostile{"/pre_tokenizer",
                R"({"type":"Sequence","pretokenizers":[{"type":"Digits"},{"type":"Metaspace",)"
                R"("replacement":"_"}]})",
                "must be ByteLevel here"},
        Hostile{"/decoder", R"({"type":"ByteLevel"})", "must go with a pre_tokenizer"},
        Hostile{"/decoder", "null", "decoder.type"},
        Hostile{"/decoder/decoders/0/type", "\"CTC\"", "decoder.decoders[0].type"},
        Hostile{"/decoder/decoders/0/pattern", R"({"Regex":"a"})", "decoders[0].pattern.Regex"},
        Hostile{"/decoder/decoders/3/stop", "1", "decoders[3].stop"},
        Hostile{"/decoder/decoders/3/start", "-1", "decoders[3].start"},
        Hostile{"/decoder/decoders/3/content", "\"ab\"", "decoders[3].content"},
        Hostile{"/decoder/decoders/3", R"({"type":"ByteFallback"})", "behind Fuse"},
        Hostile{"/decoder/decoders", "7", "decoder.decoders"},
        Hostile{"/model/end_of_word_suffix", "\"</w>\"", "end_of_word_suffix"},
        Hostile{"/model/byte_fallback", "1", "model.byte_fallback"},
        Hostile{"/model/unk_token", "\"<none>\"", "model.unk_token"}));

INSTANTIATE_TEST_SUITE_P(
    Table, HostileTokenizer,
    ::testing::Values(
        Hostile{"/model", "null", "model"}, Hostile{"/model/type", "\"WordPiece\"", "WordPiece"},
        Hostile{"/model/dropout", "0.1", "model.dropout"},
        Hostile{"/model/byte_fallback", "true", "model.byte_fallback"},
        Hostile{"/model/byte_fallback", "\"no\"", "model.byte_fallback"},
        Hostile{"/model/continuing_subword_prefix", "\"##\"", "continuing_subword_prefix"},
        Hostile{"/model/end_of_word_suffix", "\"</w>\"", "end_of_word_suffix"},
        Hostile{"/model/unk_token", "\"<unk>\"", "model.unk_token"},
        Hostile{"/model/surprise", "1", "model.surprise"},
        Hostile{"/model/vocab", "{}", "model.vocab"}, Hostile{"/model/vocab", "[]", "model.vocab"},
        Hostile{"/model/vocab/a", "-1", "model.vocab.\"a\""},
        Hostile{"/model/vocab/a", "99999999999999999999", "must be an id"},
        Hostile{"/model/vocab/a", "4294967296", "model.vocab.\"a\""},
        Hostile{"/model/vocab/a", "2000", "without a gap"},
        Hostile{"/model/vocab/a", "0", "this id too"}, Hostile{"/model/vocab/a", "1.5", "integer"},
        Hostile{"/model/merges", "{}", "model.merges"},
        Hostile{"/model/merges/3", "\"abc\"", "model.merges[3]"},
        Hostile{"/model/merges/3", "\"a b c\"", "model.merges[3]"},
        Hostile{"/model/merges/3", "[\"a\"]", "model.merges[3]"},
        Hostile{"/model/merges/3", "[\"a\",7]", "model.merges[3]"},
        Hostile{"/model/merges/3", "[\"a\",\"zqzq\"]", "zqzq"},
        Hostile{"/normalizer", R"({"type":"Nmt"})", "Nmt"},
        Hostile{"/normalizer", R"({"type":"Sequence","normalizers":[{"type":"Nmt"}]})",
                "normalizer.normalizers[0].type"},
        Hostile{"/pre_tokenizer", "null", "pre_tokenizer"},
        Hostile{"/pre_tokenizer/type", "\"Whitespace\"", "Whitespace"},
        Hostile{"/pre_tokenizer",
                R"({"type":"Metaspace","replacement":"_","prepend_scheme":"never"})",
                "must go with a pre_tokenizer"},
        Hostile{"/pre_tokenizer", R"({"type":"Sequence","pretokenizers":[]})", "pretokenizers"},
        Hostile{"/pre_tokenizer",
                R"({"type":"Sequence","pretokenizers":[{"type":"Punctuation"},)"
                R"({"type":"ByteLevel"}]})",
                "pre_tokenizer.pretokenizers[0].type"},
        Hostile{"/pre_tokenizer",
                R"({"type":"Sequence","pretokenizers":[{"type":"Split",)"
                R"("pattern":{"Regex":"(a"},"behavior":"Isolated",)"
                R"("invert":false},{"type":"ByteLevel"}]})",
                "pretokenizers[0].pattern"},
        Hostile{"/pre_tokenizer",
                R"({"type":"Sequence","pretokenizers":[{"type":"Digits",)"
                R"("individual_digits":1},{"type":"ByteLevel"}]})",
                "pretokenizers[0].individual_digits"},
        Hostile{"/pre_tokenizer", R"({"type":"Sequence","pretokenizers":[{"type":"Digits"}]})",
                "must be ByteLevel, Metaspace or BertPreTokenizer here"},
        Hostile{"/post_processor", R"({"type":"BertProcessing"})", "post_processor.cls"},
        Hostile{"/post_processor",
                R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}]})",
                "special_tokens.\"x\""},
        Hostile{"/decoder", "null", "decoder"},
        Hostile{"/decoder/type", "\"WordPiece\"", "decoder"},
        Hostile{"/added_tokens", "7", "added_tokens"},
        Hostile{"/added_tokens/0/id", "-5", "added_tokens[0].id"},
        Hostile{"/added_tokens/0/id", "1200", "added_tokens[0].id"},
        Hostile{"/added_tokens/1/content", "\"<|endoftext|>\"", "added_tokens[1].content"},
        Hostile{"/added_tokens/0/content", "\"\"", "added_tokens[0].content"},
        Hostile{"/added_tokens/0/lstrip", "1", "added_tokens[0].lstrip"},
        Hostile{"/truncation", "3", "truncation"}, Hostile{"/version", "\"2.0\"", "version"},
        Hostile{"/surprise", "{}", "surprise"}));

TEST(ByteTokenizer, IdsAreTheBytes) {
  const auto tokenizer = make_byte_tokenizer();
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text += static_cast<char>(byte);
  const auto ids = tokenizer->encode(text, true);
  ASSERT_TRUE(ids.has_value());
  for (int64_t i = 0; i < 256; ++i) EXPECT_EQ((*ids)[static_cast<size_t>(i)], i);
  EXPECT_EQ(tokenizer->decode(*ids, {.skip_special = true}), text);
  EXPECT_EQ(tokenizer->decode(std::vector<int64_t>{72, 256, 257, -1}, {}), "H<|endoftext|>");
  EXPECT_EQ(tokenizer->eos_id(), 256);
  EXPECT_EQ(tokenizer->vocab_size(), 257);
}

// An export of it takes any bytes again; one byte elsewhere, and it is another tokenizer.
TEST(ByteTokenizer, ItsExportIsRecognized) {
  const std::string bytes = "a\xff\x80<|endoftext|>";
  const auto load = [](const std::string& text) {
    auto loaded = load_tokenizer_json(text);
    EXPECT_TRUE(loaded.has_value()) << loaded.error().to_string();
    return std::move(*loaded);
  };
  const auto exported = load(byte_tokenizer_json());
  EXPECT_EQ(exported->type(), "byte");
  EXPECT_EQ(*exported->encode(bytes, true), *make_byte_tokenizer()->encode(bytes, true));
  nlohmann::json other = nlohmann::json::parse(byte_tokenizer_json());
  other["model"]["vocab"]["a"] = 'b';
  other["model"]["vocab"]["b"] = 'a';
  EXPECT_EQ(load(other.dump())->type(), "byte_level_bpe");
  other = nlohmann::json::parse(byte_tokenizer_json());
  other["pre_tokenizer"]["use_regex"] = true;
  EXPECT_EQ(load(other.dump())->type(), "byte_level_bpe");
  other = nlohmann::json::parse(byte_tokenizer_json());
  other["model"]["merges"] = {"a b"};
  other["model"]["vocab"]["ab"] = 256;
  other["added_tokens"][0]["id"] = 257;
  EXPECT_EQ(load(other.dump())->type(), "byte_level_bpe");
}

TEST(ByteTokenizer, ItsExportGivesTheSameIds) {
  const auto files = byte_tokenizer_files();
  ASSERT_EQ(files.size(), 3U);
  EXPECT_EQ(files[0].content, byte_tokenizer_json());
  const auto exported = load_tokenizer_json(files[0].content, files[1].content);
  ASSERT_TRUE(exported.has_value()) << exported.error().to_string();
  const std::string text =
      "Hello\n  world\t\x01 \xC3\xA9 \xF0\x9F\x98\x80" + std::string(5000, 'x');
  EXPECT_EQ(*(*exported)->encode(text, true), *make_byte_tokenizer()->encode(text, true));
  EXPECT_EQ((*exported)->decode(*(*exported)->encode(text, true), {}), text);
  EXPECT_EQ((*exported)->eos_id(), 256);
  EXPECT_EQ((*exported)->vocab_size(), 257);
}

TEST(Utf8, BrokenSequencesBecomeOneReplacementEach) {
  using tokenizers::to_valid_utf8;
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(to_valid_utf8("a\xE6\xBC"
                          "b"),
            "a" + r + "b");
  EXPECT_EQ(to_valid_utf8("\xF0\x9F\x98"), r);
  EXPECT_EQ(to_valid_utf8("\xF0\x9F\x98\xF0"), r + r);
  EXPECT_EQ(to_valid_utf8("\xE0\x80\x80"), r + r + r);
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80"), r + r + r);
  EXPECT_EQ(to_valid_utf8("\xC3(\x80"), r + "(" + r);
}

}  // namespace
}  // namespace weft
