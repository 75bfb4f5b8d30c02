#include "tests/worker/data/tokenizer_fixtures.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <utility>

namespace weft {

std::string fixture(const std::string& name) {
  std::ifstream stream(WEFT_SOURCE_DIR "/tests/worker/data/fixtures/" + name, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  EXPECT_FALSE(text.view().empty()) << name;
  return std::move(text).str();
}

const json& character_file() {
  static const json kFile = json::parse(fixture("character_tokenizer.json"));
  return kFile;
}

const json& bpe_file() {
  static const json kFile = json::parse(fixture("bpe_tokenizer.json"));
  return kFile;
}

std::vector<json> lines(const std::string& name) {
  std::vector<json> result;
  std::istringstream stream(fixture(name));
  for (std::string line; std::getline(stream, line);) result.push_back(json::parse(line));
  return result;
}

std::unique_ptr<Tokenizer> load(const json& file, const std::string& config) {
  auto tokenizer = load_tokenizer_json(file.dump(), config);
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().to_string();
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

void expect_case(const Tokenizer& tokenizer, const json& expected) {
  const std::string text = expected.at("text");
  const auto encoding = tokenizer.encode_with_offsets(text, true);
  ASSERT_TRUE(encoding.has_value()) << encoding.error().to_string();
  EXPECT_EQ(json(encoding->ids), expected.at("ids")) << expected;
  EXPECT_EQ(json(*tokenizer.encode(text, true)), expected.at("ids")) << expected;
  json offsets = json::array();
  for (const TokenOffsets& at : encoding->offsets) offsets.push_back({at.begin, at.end});
  if (expected.contains("offsets")) {
    EXPECT_EQ(offsets, expected["offsets"]) << expected;
  }
  EXPECT_EQ(tokenizer.decode(encoding->ids, {.skip_special = true}), expected.at("decoded"));
  EXPECT_EQ(tokenizer.decode(encoding->ids, {}), expected.at("decoded_with_special"));
}

json with_ends(json file, const char* first, int64_t first_id, const char* last, int64_t last_id) {
  const auto special = [](const char* id) {
    return json{{"SpecialToken", {{"id", id}, {"type_id", 0}}}};
  };
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  file["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", json::array({special(first), text, special(last)})},
      {"pair", json::array()},
      {"special_tokens", {{first, {{"ids", {first_id}}}}, {last, {{"ids", {last_id}}}}}}};
  return file;
}

json metaspace(const char* scheme, bool split) {
  return {{"type", "Metaspace"},
          {"replacement", "\u2581"},
          {"prepend_scheme", scheme},
          {"split", split}};
}

json replace(const char* kind, const char* pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
}

}  // namespace weft
