// Sources, data sets and samplers.
#include "worker/data/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "worker/data/check.h"

namespace weft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DatasetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/dataset-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void put(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories(std::filesystem::path(folder_ + "/" + name).parent_path());
    std::ofstream(folder_ + "/" + name, std::ios::binary) << content;
  }
  Result<std::shared_ptr<const Dataset>> stream(int64_t length, InputFormat format) const {
    DatasetOptions options;
    options.source.format = format;
    options.sequence_length = length;
    return load(options);
  }
  Result<std::shared_ptr<const Dataset>> lines(
      int64_t length, int64_t labels, std::optional<std::vector<std::string>> names = std::nullopt,
      std::vector<std::string> first = {}) const {
    DatasetOptions options;
    options.kind = SampleKind::kClassification;
    options.source.format = InputFormat::kJsonl;
    options.source.label_key = "label";
    options.sequence_length = length;
    options.labels = labels;
    options.label_names = std::move(names);
    options.first_labels = std::move(first);
    return load(options);
  }
  Result<std::shared_ptr<const Dataset>> load(const DatasetOptions& options) const {
    WEFT_ASSIGN_OR_RETURN(const auto files, input_files(folder_));
    return Dataset::load(files, options, *tokenizer_);
  }
  Status check(const DatasetOptions& options, bool utf8) const {
    Labels labels(options.source.label_key, options.labels, std::nullopt);
    return check_data(*input_files(folder_), options, utf8, labels);
  }
  void expect_refused(const std::string& content, const std::string& expected) const {
    put("data.jsonl", content);
    const auto set = lines(8, 2);
    ASSERT_FALSE(set.has_value()) << content;
    EXPECT_THAT(set.error().to_string(), HasSubstr(expected)) << content;
  }

  static std::optional<std::vector<std::string>> names(std::vector<std::string> names) {
    return names;
  }

  std::string folder_;
  std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();
};

TEST_F(DatasetTest, TextIsOneStreamInOrderOfNames) {
  put("b.txt", "cd");
  put("a.txt", "ab");
  put("c/d.txt", "e\xff");
  put("empty.txt", "");
  const auto set = stream(4, InputFormat::kText);
  ASSERT_TRUE(set.has_value()) << set.error().to_string();
  EXPECT_EQ((*set)->tokens(), 9);  // a b | c d | e ff |
  EXPECT_EQ((*set)->samples(), 3);
  const TaskRows rows = (*set)->range(0, 10);
  EXPECT_EQ(rows.rows, 3);
  EXPECT_EQ(rows.tokens, 4);
  EXPECT_THAT(rows.ids, ElementsAre('a', 'b', 256, 'c', 'c', 'd', 256, 'e', 'e', 255, 256, 256));
  EXPECT_THAT(rows.valid, ElementsAre(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0));
  EXPECT_TRUE(rows.labels.empty());
  EXPECT_TRUE((*set)->range(0, 2).valid.empty());
}

// Each token but the first is predicted exactly once, whatever the length of the rows.
TEST_F(DatasetTest, WindowsPredictEachTokenOnce) {
  std::string text;
  for (int i = 0; i < 101; ++i) text += static_cast<char>(i);
  put("a.txt", text);
  for (int64_t length = 2; length < 110; ++length) {
    const auto set = stream(length, InputFormat::kText);
    ASSERT_TRUE(set.has_value());
    std::vector<int64_t> predicted;
    for (int64_t i = 0; i < (*set)->samples(); ++i) {
      const TaskRows row = (*set)->range(i, 1);
      for (size_t t = 1; t < row.ids.size(); ++t) {
        if (row.valid.empty() || row.valid[t] != 0) predicted.push_back(row.ids[t]);
      }
    }
    ASSERT_EQ(predicted.size(), 101U) << length;
    for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(predicted[static_cast<size_t>(i)], i + 1);
    EXPECT_EQ(predicted.back(), 256);
  }
  EXPECT_FALSE(stream(1, InputFormat::kText).has_value());
}

TEST_F(DatasetTest, LinesAreDocumentsOfTheStreamToo) {
  put("a.jsonl", "{\"text\":\"ab\",\"other\":[1]}\n\n{\"text\":\"\"}\r\n{\"text\":\"c\"}");
  const auto set = stream(8, InputFormat::kJsonl);
  ASSERT_TRUE(set.has_value()) << set.error().to_string();
  EXPECT_EQ((*set)->tokens(), 5);
}

constexpr const char* kChatTemplate =
    "{% for m in messages %}{{ m.role[0] ~ ':' ~ m.content ~ ';' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'a:' }}{% endif %}";

// Each answer, and the template's end of it, is predicted exactly once; no other token is.
TEST_F(DatasetTest, OfChatsTheAnswersArePredicted) {
  tokenizer_->set_files({{"chat_template.jinja", kChatTemplate}});
  put("a.jsonl", R"({"messages": [{"role": "user", "content": "long question"}, )"
                 R"({"role": "assistant", "content": "YES"}, {"role": "user", "content": "q"}, )"
                 R"({"role": "assistant", "content": "no", "weight": 0}]})"
                 "\n"
                 R"({"messages": [{"role": "user", "content": "ä"}, )"
                 R"({"role": "assistant", "content": "öK"}], "tools": null})");
  const std::string stream_text = "u:long question;a:YES;u:q;a:no;u:ä;a:öK;";
  for (int64_t length = 2; length < 60; ++length) {
    const auto set = stream(length, InputFormat::kJsonl);
    ASSERT_TRUE(set.has_value()) << set.error().to_string();
    EXPECT_EQ((*set)->tokens(), static_cast<int64_t>(stream_text.size()));
    std::string predicted;
    for (int64_t i = 0; i < (*set)->samples(); ++i) {
      const TaskRows row = (*set)->range(i, 1);
      ASSERT_EQ(row.labels.size(), row.ids.size());
      EXPECT_EQ(row.labels.front(), kNoLabel);
      EXPECT_TRUE(std::ranges::any_of(row.labels, [](int64_t label) { return label >= 0; }));
      for (size_t t = 0; t < row.ids.size(); ++t) {
        if (row.labels[t] == kNoLabel) continue;
        EXPECT_EQ(row.labels[t], row.ids[t]);
        predicted += static_cast<char>(row.labels[t]);
      }
    }
    EXPECT_EQ(predicted, "YES;öK;") << length;
  }
}

TEST_F(DatasetTest, TextsBesideChatsArePredictedWhole) {
  tokenizer_->set_files({{"chat_template.jinja", kChatTemplate}});
  put("a.jsonl",
      "{\"text\": \"ab\"}\n"
      "{\"text\": [{\"role\": \"user\", \"content\": \"q\"}, "
      "{\"role\": \"assistant\", \"content\": \"A\"}]}\n{\"text\": \"c\"}\n");
  const auto set = stream(32, InputFormat::kJsonl);
  ASSERT_TRUE(set.has_value()) << set.error().to_string();
  const TaskRows rows = (*set)->range(0, 1);
  std::vector<int64_t> predicted;
  for (const int64_t label : rows.labels) {
    if (label != kNoLabel) predicted.push_back(label);
  }
  EXPECT_THAT(predicted, ElementsAre('b', 256, 'A', ';', 'c', 256));
}

TEST_F(DatasetTest, BadChatsNameFileLineAndRule) {
  const auto refused = [&](const std::string& content, const std::string& expected) {
    put("a.jsonl", "{\"text\": \"x\"}\n" + content);
    const auto set = stream(8, InputFormat::kJsonl);
    ASSERT_FALSE(set.has_value()) << content;
    EXPECT_THAT(set.error().to_string(), HasSubstr("a.jsonl line 2")) << content;
    EXPECT_THAT(set.error().to_string(), HasSubstr(expected)) << content;
  };
  const std::string chat =
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})";
  refused(chat, "needs a chat template");
  tokenizer_->set_files({{"chat_template.jinja", "\n{% include 'x' %}"}});
  refused(chat, "chat template line 2 column 4: the statement 'include' is not supported");
  tokenizer_->set_files({{"chat_template.jinja", "{{ raise_exception('Not so.') }}"}});
  refused(chat, "Not so.");
  tokenizer_->set_files({{"chat_template.jinja", kChatTemplate}});
  refused(R"({"messages": "x"})", "must be a list of messages");
  refused(R"({"messages": []})", "must be a list of messages");
  refused(R"({"messages": [{"role": "user"}]})", "must have an answer");
  refused(R"({"messages": [{"role": "assistant", "content": "a"}]})", "nothing to answer");
  refused(R"({"text": {"messages": []}})", "must be a string, or a list of messages");
  refused(R"({"txt": "x"})", "is missing");
  std::filesystem::remove(folder_ + "/a.jsonl");
  expect_refused(R"({"messages": [{"role": "user"}], "label": 1})", "must be a string");
}

TEST_F(DatasetTest, CheckDataRendersChatsWhereTheTokenizerIsKnown) {
  put("a.jsonl", R"({"messages": [{"role": "user", "content": "q"}]})");
  DatasetOptions options;
  options.source.format = InputFormat::kJsonl;
  options.sequence_length = 8;
  EXPECT_TRUE(check(options, true).ok());
  const std::vector<TokenizerFile> files = {{"chat_template.jinja", kChatTemplate}};
  Chats chats(files);
  Labels labels("label", 0, std::nullopt);
  const Status status = check_data(*input_files(folder_), options, true, labels, &chats);
  EXPECT_THAT(status.to_string(), HasSubstr("must have an answer"));
}

TEST_F(DatasetTest, ClassificationIsCutPaddedAndLabelled) {
  put("a.jsonl", "{\"text\":\"abcdefghijklmnop\",\"label\":1}\n{\"text\":\"xy\",\"label\":0}\n");
  const auto set = lines(10, 2);
  ASSERT_TRUE(set.has_value()) << set.error().to_string();
  const TaskRows both = (*set)->rows(std::vector<Visit>{{0, 1}, {0, 0}});
  EXPECT_EQ(both.tokens, 10);
  EXPECT_THAT(both.labels, ElementsAre(0, 1));
  EXPECT_EQ(both.ids[1], 'y');
  EXPECT_EQ(both.ids[2], 256);
  EXPECT_EQ(both.valid[1], 1);
  EXPECT_EQ(both.valid[2], 0);
  EXPECT_EQ(both.ids[19], 'j');
  EXPECT_EQ((*set)->range(1, 1).tokens, 8);
  EXPECT_TRUE((*set)->label_names().empty());
}

TEST_F(DatasetTest, TextsToClassifyAreTheSameRowsWithoutLabels) {
  put("a.jsonl", "{\"text\":\"abcdefghijklmnop\",\"label\":1}\n{\"text\":\"xy\",\"label\":0}\n");
  const auto labeled = *lines(10, 2);
  put("a.jsonl", "{\"text\":\"abcdefghijklmnop\"}\n{\"text\":\"xy\",\"label\":{}}\n");
  DatasetOptions options;
  options.kind = SampleKind::kUnlabeled;
  options.source = {.format = InputFormat::kJsonl, .label_key = "label"};
  options.sequence_length = 10;
  const auto set = load(options);
  ASSERT_TRUE(set.has_value()) << set.error().to_string();
  const TaskRows rows = (*set)->range(0, 2);
  EXPECT_EQ(rows.ids, labeled->range(0, 2).ids);
  EXPECT_EQ(rows.valid, labeled->range(0, 2).valid);
  EXPECT_THAT(rows.labels, ElementsAre(kNoLabel, kNoLabel));
  for (const auto& each : {*set, labeled}) {
    EXPECT_EQ(each->dropped_tokens(0), 6);
    EXPECT_EQ(each->dropped_tokens(1), 0);
  }
  put("a.jsonl", "{\"text\":\"\"}\n");
  EXPECT_EQ(load(options).error().field(), "text");
}

TEST_F(DatasetTest, StringLabelsAreNumberedInSortedOrder) {
  put("a.jsonl",
      "{\"text\":\"1\",\"label\":\"mit\"}\n{\"text\":\"2\",\"label\":\"gpl\"}\n"
      "{\"text\":\"3\",\"label\":\"mit\"}\n");
  const auto set = lines(10, 3);
  ASSERT_TRUE(set.has_value()) << set.error().to_string();
  EXPECT_THAT((*set)->label_names(), ElementsAre("gpl", "mit"));
  EXPECT_THAT((*set)->range(0, 3).labels, ElementsAre(1, 0, 1));
  EXPECT_THAT((*lines(10, 3, names({"bsd", "gpl", "mit"})))->range(0, 3).labels,
              ElementsAre(2, 1, 2));
  EXPECT_THAT(lines(10, 3, names({"gpl"})).error().to_string(), HasSubstr("a.jsonl line 1"));
  put("b.jsonl", "{\"text\":\"4\",\"label\":\"bsd\"}\n");
  EXPECT_EQ(lines(10, 2).error().to_string(),
            "b.jsonl line 1: label makes 3 different labels, the task has labels: 2 (got bsd)");
  // Training on integers gives a held-out string no class.
  EXPECT_THAT(lines(10, 3, names({})).error().to_string(), HasSubstr("the training data has"));
}

// A model's head has a row for each of its classes, which go on standing for them.
TEST_F(DatasetTest, ClassesOfTheModelKeepTheirNumbers) {
  put("a.jsonl",
      "{\"text\":\"1\",\"label\":\"mit\"}\n{\"text\":\"2\",\"label\":\"gpl\"}\n"
      "{\"text\":\"3\",\"label\":\"mit\"}\n");
  const auto set = [&](int64_t labels, std::vector<std::string> first) {
    return lines(10, labels, std::nullopt, std::move(first)).value();
  };
  EXPECT_THAT(set(3, {"mit", "bsd", "gpl"})->label_names(), ElementsAre("mit", "bsd", "gpl"));
  EXPECT_THAT(set(3, {"mit", "bsd", "gpl"})->range(0, 3).labels, ElementsAre(0, 2, 0));
  EXPECT_THAT(set(3, {"zlib", "mit"})->label_names(), ElementsAre("zlib", "mit", "gpl"));
  EXPECT_THAT(set(3, {"zlib", "mit"})->range(0, 3).labels, ElementsAre(1, 2, 1));
  // No room for all: the names' order.
  EXPECT_THAT(set(3, {"zlib", "bsd", "mit"})->label_names(), ElementsAre("gpl", "mit"));
  EXPECT_THAT(set(3, {"zlib", "bsd", "mit"})->range(0, 3).labels, ElementsAre(1, 0, 1));
  // Of a model with a name twice, held-out data has the numbers that the training data has.
  const auto twice = set(3, {"mit", "mit", "gpl"});
  EXPECT_THAT(lines(10, 3, twice->label_names()).value()->label_names(),
              ElementsAre("mit", "mit", "gpl"));
  EXPECT_EQ(lines(10, 3, twice->label_names()).value()->range(0, 3).labels,
            twice->range(0, 3).labels);
  put("a.jsonl", "{\"text\":\"1\",\"label\":2}\n");
  EXPECT_TRUE(set(3, {"mit", "bsd", "gpl"})->label_names().empty());
}

TEST_F(DatasetTest, BadLinesNameFileLineAndRule) {
  const std::string good = "{\"text\":\"a\",\"label\":0}\n";
  expect_refused(good + "{\"text\":\"\xff\",\"label\":0}", "data.jsonl line 2");
  expect_refused(good + "{\"label\":0}", "line 2: ");
  expect_refused("{\"label\":0}", "text");
  expect_refused("{\"text\":\"a\"}", "label");
  expect_refused("{\"text\":7,\"label\":0}", "must be a string");
  expect_refused("{\"text\":\"a\",\"label\":2}", "[0, 2)");
  expect_refused("{\"text\":\"a\",\"label\":-1}", "[0, 2)");
  expect_refused("{\"text\":\"a\",\"label\":1.0}", "integer or a string");
  expect_refused("{\"text\":\"a\",\"label\":true}", "integer or a string");
  expect_refused("{\"text\":\"a\",\"label\":18446744073709551615}", "integer or a string");
  expect_refused(good + "{\"text\":\"a\",\"label\":\"x\"}", "all as integers");
  expect_refused("{\"text\":\"a\",\"label\":\"x\"}\n" + good, "all as integers");
  expect_refused("{\"text\":\"\",\"label\":0}", "must not be empty");
  expect_refused("[1]", "JSON object");
  expect_refused("{\"text\":\"a\",\"text\":\"b\",\"label\":0}", "line 1");
  expect_refused("{", "line 1");
  expect_refused("\n\n", "empty");
  expect_refused("{\"text\":\"" + std::string(17 << 20, 'a') + "\",\"label\":0}", "at most");
}

// What an error says apart from its text: key, value and line, none of them a path of the node.
TEST_F(DatasetTest, ErrorsOfARowHaveKeyValueAndLine) {
  put("deep/data.jsonl", "{\"text\":\"a\",\"label\":0}\n\n{\"text\":\"b\",\"label\":7}\n");
  const Status status = lines(8, 2).error();
  EXPECT_EQ(status.field(), "label");
  EXPECT_EQ(status.value(), "7");
  EXPECT_EQ(status.line(), 3);
  EXPECT_EQ(status.to_string(),
            "deep/data.jsonl line 3: label must be in [0, 2), as the task has labels: 2 (got 7)");
  put("deep/data.jsonl", "{\"txt\":\"a\",\"label\":0}\n");
  EXPECT_EQ(lines(8, 2).error().to_string(),
            "deep/data.jsonl line 1: text is missing; the row's keys are: label, txt");
}

// The command line's check and the ranks refuse the same with the same words.
TEST_F(DatasetTest, CheckDataSaysWhatLoadingWouldSay) {
  DatasetOptions options;
  options.kind = SampleKind::kClassification;
  options.source.format = InputFormat::kJsonl;
  options.source.label_key = "label";
  options.sequence_length = 8;
  options.labels = 2;
  for (const char* row :
       {"{", "[1]", "{\"label\":0}", "{\"text\":1,\"label\":0}", "{\"text\":\"\",\"label\":0}",
        "{\"text\":\"a\",\"label\":2}", "{\"text\":\"a\",\"label\":\"x\"}",
        "{\"text\":\"a\",\"label\":null}", "{\"text\":\"a\",\"text\":\"b\",\"label\":0}",
        "{\"text\":\"\xff\",\"label\":0}"}) {
    put("data.jsonl", std::string("{\"text\":\"a\",\"label\":0}\n") + row + "\n");
    const Status checked = check(options, false);
    ASSERT_FALSE(checked.ok()) << row;
    EXPECT_EQ(checked.to_string(), load(options).error().to_string());
    EXPECT_THAT(checked.to_string(), HasSubstr("data.jsonl line 2: "));
    EXPECT_EQ(checked.line(), 2);
  }
  put("data.jsonl", "\n\n");
  EXPECT_FALSE(check(options, false).ok());
  put("data.jsonl", "{\"text\":\"a\",\"label\":\"y\"}\n{\"text\":\"b\",\"label\":\"x\"}\n");
  Labels labels("label", 2, std::nullopt);
  EXPECT_TRUE(check_data(*input_files(folder_), options, false, labels).ok());
  EXPECT_THAT(labels.names(), ElementsAre("x", "y"));
}

TEST_F(DatasetTest, TextHasToBeUtf8ForATokenizerJsonOnly) {
  put("a.txt", "one\ntwo\xff\n");
  EXPECT_TRUE(check({}, false).ok());
  const Status status = check({}, true);
  EXPECT_THAT(status.to_string(), HasSubstr("a.txt line 2: text must be valid UTF-8"));
  EXPECT_EQ(status.value(), "byte 0xff");
  put("a.txt", "");
  EXPECT_THAT(check({}, false).to_string(), HasSubstr("it has no text"));
}

TEST_F(DatasetTest, InputsThatAreNotThereAreErrors) {
  EXPECT_THAT(stream(8, InputFormat::kText).error().to_string(), HasSubstr("holds no file"));
  put("empty.txt", "");
  EXPECT_THAT(stream(8, InputFormat::kText).error().to_string(), HasSubstr("empty"));
  EXPECT_EQ(input_files(folder_ + "/none").error().code(), Code::kNotFound);
  EXPECT_FALSE(staged_input(folder_, "../x").has_value());
  EXPECT_FALSE(staged_input(folder_, "").has_value());
  EXPECT_EQ(staged_input(folder_, "obj-1").error().code(), Code::kNotFound);
  std::filesystem::create_directory(folder_ + "/obj-1");
  EXPECT_EQ(*staged_input(folder_, "obj-1"), folder_ + "/obj-1");
}

TEST(Sampler, EachEpochIsAPermutationAndEpochsDiffer) {
  Sampler sampler(100, true, {17, 3});
  auto first = sampler.next(100), second = sampler.next(100);
  EXPECT_NE(first, second);
  EXPECT_FALSE(std::ranges::is_sorted(first, {}, &Visit::sample));
  for (auto* epoch : {&first, &second}) {
    std::ranges::sort(*epoch, {}, &Visit::sample);
    for (int64_t i = 0; i < 100; ++i) {
      EXPECT_EQ((*epoch)[static_cast<size_t>(i)], (Visit{epoch == &first ? 0 : 1, i}));
    }
  }
  Sampler other(100, true, {18, 3});
  EXPECT_NE(other.next(100), Sampler(100, true, {17, 3}).next(100));
}

TEST(Sampler, GoesOnFromAnyPosition) {
  for (const bool shuffle : {true, false}) {
    const std::vector<Visit> whole = Sampler(7, shuffle, {5, 1}).next(40);
    for (int64_t used = 0; used < 30; ++used) {
      Sampler before(7, shuffle, {5, 1});
      before.next(used);
      Sampler after(7, shuffle, {5, 1});
      ASSERT_TRUE(after.restore(before.position()).ok());
      EXPECT_EQ(after.next(10),
                std::vector<Visit>(whole.begin() + used, whole.begin() + used + 10));
    }
  }
  Sampler sampler(7, true, {5, 1});
  EXPECT_FALSE(sampler.restore({0, 8}).ok());
  EXPECT_FALSE(sampler.restore({-1, 0}).ok());
}

// Each of the 6 orders of 3 samples is about as frequent: none is favoured.
TEST(Sampler, OrdersAreUniform) {
  std::map<std::vector<int64_t>, int> counts;
  Sampler sampler(3, true, {1, 1});
  for (int epoch = 0; epoch < 6000; ++epoch) {
    std::vector<int64_t> order;
    for (const Visit& visit : sampler.next(3)) order.push_back(visit.sample);
    ++counts[order];
  }
  EXPECT_EQ(counts.size(), 6U);
  for (const auto& [order, count] : counts) EXPECT_NEAR(count, 1000, 150);
}

}  // namespace
}  // namespace weft
