// docs/reference/models.md says of each family which keys it reads and what absent ones mean.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "worker/models/model.h"

namespace weft {
namespace {

std::string text_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  EXPECT_TRUE(in.good()) << file;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string page() { return text_of(WEFT_SOURCE_DIR "/docs/reference/models.md"); }

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream in(line.substr(1));
  for (std::string cell; std::getline(in, cell, '|');) {
    const size_t first = cell.find_first_not_of(" `"), last = cell.find_last_not_of(" `");
    cells.push_back(first == std::string::npos ? "" : cell.substr(first, last - first + 1));
  }
  return cells;
}

struct Row {
  std::string family, key, value;  // value empty: no key of this family
};

// Every key of every family, of the tables whose first column is "key".
std::vector<Row> rows() {
  std::vector<Row> all;
  std::vector<std::string> titles;
  std::istringstream lines(page());
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("|")) titles.clear();
    if (!line.starts_with("|") || line.starts_with("| ---")) continue;
    const std::vector<std::string> cells = cells_of(line);
    if (cells.front() == "key") {
      titles = cells;
      continue;
    }
    for (size_t i = 1; i < titles.size() && titles[i] != "meaning"; ++i) {
      all.push_back({titles[i] == "default" ? "gpt2" : titles[i], cells.front(), cells.at(i)});
    }
  }
  return all;
}

TEST(ModelsPage, SaysWhatAbsentKeysMean) {
  std::map<std::string, int> keys;
  for (const Row& row : rows()) {
    const ModelFamily* family = find_family(row.family);
    ASSERT_NE(family, nullptr) << row.family;
    const std::string where = row.family + " " + row.key;
    if (row.value.empty()) {
      const auto refused = family->parse_config("{\"" + row.key + "\": 1}");
      ASSERT_FALSE(refused) << where;
      EXPECT_EQ(refused.error().field(), row.key);
      continue;
    }
    ++keys[row.family];
    const auto absent = family->parse_config("{}");
    ASSERT_TRUE(absent) << absent.error().to_string();
    const auto said = family->parse_config("{\"" + row.key + "\": " + row.value + "}");
    ASSERT_TRUE(said) << where << ": " << said.error().to_string();
    EXPECT_EQ(family->config_json(**said, {}), family->config_json(**absent, {})) << where;
  }
  EXPECT_EQ(keys.size(), 12U);
  for (const auto& [family, count] : keys) EXPECT_GE(count, 16) << family;
}

TEST(ModelsPage, NamesEveryKeyThatIsRead) {
  const std::string whole = page();
  const std::regex one(
      R"rx((?:reader|outer)\.(?:number|flag|text|has|only|array|object|integers|)rx"
      R"rx(optional_integer|optional_number)\("([a-z0-9_]+)")rx");
  const std::regex several(R"rx(\.integer\(\{([^}]*)\})rx"), name(R"rx("([a-z0-9_]+)")rx");
  int found = 0;
  const auto expect_named = [&](const std::string& text, const std::regex& what) {
    for (std::sregex_iterator at(text.begin(), text.end(), what), end; at != end; ++at, ++found) {
      const std::string key = (*at)[1];
      EXPECT_NE(whole.find("`" + key + "`"), std::string::npos) << key;
    }
  };
  for (const auto& entry : std::filesystem::directory_iterator(WEFT_SOURCE_DIR "/worker/models")) {
    if (!entry.path().string().ends_with("_config.cc")) continue;
    const std::string text = text_of(entry.path());
    expect_named(text, one);
    for (std::sregex_iterator at(text.begin(), text.end(), several), end; at != end; ++at) {
      expect_named((*at)[1], name);
    }
  }
  EXPECT_GT(found, 50);
}

}  // namespace
}  // namespace weft
