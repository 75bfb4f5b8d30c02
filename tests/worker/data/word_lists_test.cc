// Lists of words with a label each, for token classification.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/worker/data/tokenizer_fixtures.h"
#include "worker/data/check.h"
#include "worker/data/dataset.h"

namespace weft {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kStart = 995, kEnd = 996;  // of the fixture

class WordListsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/words-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    tokenizer_ = weft::load(with_ends(bpe_file(), "<|endoftext|>", kStart, "<|pad|>", kEnd));
    options_.kind = SampleKind::kTokenClassification;
    options_.source = {.format = InputFormat::kJsonl, .label_key = "label", .words = true};
    options_.sequence_length = 32;
    options_.labels = 3;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  Result<std::shared_ptr<const Dataset>> load(const std::string& content) const {
    std::ofstream(folder_ + "/data.jsonl") << content;
    return Dataset::load(*input_files(folder_), options_, *tokenizer_);
  }
  int64_t count(const std::string& text) const {
    return std::ssize(*tokenizer_->encode(text, false));
  }

  std::string folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  DatasetOptions options_;
};

// As by transformers with is_split_into_words and add_prefix_space.
TEST_F(WordListsTest, FirstTokensHaveTheWordsLabels) {
  const auto set = load(R"({"text":["Xylophone","is","weft"],"label":["B-X","O","I-X"]})"
                        "\n"
                        R"({"text":["q"],"label":["O"]})"
                        "\n");
  ASSERT_TRUE(set) << set.error().to_string();
  EXPECT_THAT((*set)->label_names(), ElementsAre("B-X", "I-X", "O"));
  std::vector<int64_t> ids{kStart};
  std::vector<int64_t> labels{kNoLabel};
  for (const auto& [word, label] : {std::pair{" Xylophone", 0}, {" is", 2}, {" weft", 1}}) {
    const std::vector<int64_t> more = *tokenizer_->encode(word, false);
    ids.insert(ids.end(), more.begin(), more.end());
    labels.push_back(label);
    labels.resize(ids.size(), kNoLabel);
  }
  ids.push_back(kEnd);
  labels.push_back(kNoLabel);
  ASSERT_GT(count(" Xylophone"), 2);
  const TaskRows rows = (*set)->range(0, 2);
  const auto width = static_cast<size_t>(rows.tokens);
  ASSERT_EQ(rows.labels.size(), 2 * width);
  EXPECT_TRUE(std::ranges::equal(std::span(rows.ids).first(ids.size()), ids));
  EXPECT_TRUE(std::ranges::equal(std::span(rows.labels).first(ids.size()), labels));
  EXPECT_EQ(rows.labels[width + 1], 2);
  EXPECT_EQ(std::ranges::count(rows.labels, kNoLabel), std::ssize(rows.labels) - 4);
  for (size_t i = 0; i < rows.ids.size(); ++i) {
    EXPECT_TRUE(rows.valid[i] != 0 || rows.labels[i] == kNoLabel) << i;
  }
}

TEST_F(WordListsTest, LongListsAreCut) {
  options_.sequence_length = 3 + count(" is");
  const auto set = load(R"({"text":["is","q","zz"],"label":[1,2,0]})"
                        "\n");
  ASSERT_TRUE(set) << set.error().to_string();
  const TaskRows rows = (*set)->range(0, 1);
  EXPECT_EQ(rows.tokens, options_.sequence_length);
  EXPECT_EQ(rows.ids.back(), kEnd);
  EXPECT_EQ(std::ranges::count(rows.labels, kNoLabel), std::ssize(rows.labels) - 2);
  EXPECT_EQ((*set)->dropped_tokens(0), count(" q") + count(" zz") - 1);
  EXPECT_THAT((*set)->word_places(0), ElementsAre(1, 1 + count(" is"), -1));
}

TEST_F(WordListsTest, WordsToClassifyAreTheSameRowsWithoutLabels) {
  const std::string content = R"({"text":["is","weft"],"label":[1,2]})"
                              "\n";
  const TaskRows labeled = (*load(content))->range(0, 1);
  options_.kind = SampleKind::kUnlabeledWords;
  const auto set = load(content);
  ASSERT_TRUE(set) << set.error().to_string();
  EXPECT_EQ((*set)->range(0, 1).ids, labeled.ids);
  EXPECT_THAT((*set)->range(0, 1).labels, ::testing::Each(kNoLabel));
  EXPECT_THAT((*set)->word_places(0), ElementsAre(1, 1 + count(" is")));
}

// The command line's check and the ranks refuse the same with the same words.
TEST_F(WordListsTest, WhatIsNoListOfWordsIsRefused) {
  const std::vector<std::pair<const char*, const char*>> cases{
      {R"({"text":"one two","label":[0,1]})",
       "text must be a list of words, as in [\"one\", \"two\"] (got \"one two\")"},
      {R"({"text":["one",2],"label":[0,1]})", "text[1] must be a string (got 2)"},
      {R"({"text":["one",""],"label":[0,1]})", "text[1] must not be empty (got \"\")"},
      {R"({"text":[],"label":[]})", "text must not be empty (got [])"},
      {R"({"text":["one"],"label":0})", "label must be a list with a label for each word (got 0)"},
      {R"({"text":["one"],"label":[0,1]})",
       "label must have one for each of the 1 words (got 2 labels)"},
      {R"({"text":["one"],"label":[0.5]})", "label[0] must be an integer or a string (got 0.5)"},
      {R"({"text":["one"],"label":[""]})", "label[0] must not be empty (got \"\")"},
      {R"({"text":["one"],"label":[3]})",
       "label must be in [0, 3), as the task has labels: 3 (got 3)"},
      {R"({"text":["one"],"label":["O"]})",
       "label the labels before it are integers; give all as integers or all as strings (got O)"},
      {R"({"text":["one"]})", "label is missing; the row's keys are: text"},
  };
  for (const auto& [line, message] : cases) {
    const auto set = load(std::string(R"({"text":["a"],"label":[0]})") + "\n" + line + "\n");
    ASSERT_FALSE(set) << line;
    EXPECT_EQ(set.error().to_string(), std::string("data.jsonl line 2: ") + message);
    Labels labels("label", options_.labels, std::nullopt);
    EXPECT_EQ(check_data(*input_files(folder_), options_, false, labels).to_string(),
              set.error().to_string());
  }
}

}  // namespace
}  // namespace weft
