// Questions: windows, offsets and the tokens of answers against encodings made by the `tokenizers`
// package (only_second, with overflowing tokens) and the rules of transformers' run_qa.py; scores
// against SQuAD's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/data/tokenizer_fixtures.h"
#include "worker/data/answers.h"
#include "worker/data/dataset.h"

namespace weft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

DatasetOptions options_of(int64_t length, int64_t stride, bool held_out = false) {
  DatasetOptions options;
  options.kind = SampleKind::kQuestionAnswering;
  options.source.format = InputFormat::kJsonl;
  options.source.text_key = "question";
  options.source.pair_key = "context";
  options.source.label_key = "answers";
  options.source.answers = true;
  options.sequence_length = length;
  options.stride = stride;
  if (held_out) options.label_names.emplace();
  return options;
}

Result<std::shared_ptr<const Dataset>> loaded(const Tokenizer& tokenizer, const std::string& rows,
                                              const DatasetOptions& options) {
  const auto documents = [&](const std::function<Status(const Document&)>& visit) {
    return for_each_row(rows, "questions.jsonl", options.source, visit);
  };
  return Dataset::load(documents, options, tokenizer);
}

std::string row(const std::string& question, const std::string& context, const json& answers) {
  return json{{"question", question}, {"context", context}, {"answers", answers}}.dump() + "\n";
}
json at(const std::string& text, int64_t start) {
  return {{"text", {text}}, {"answer_start", {start}}};
}
const json kNone = {{"text", json::array()}, {"answer_start", json::array()}};

std::unique_ptr<Tokenizer> word_piece() {
  return load(json::parse(fixture("word_piece_tokenizer.json")));
}
std::unique_ptr<Tokenizer> roberta() {
  json file = bpe_file();
  file["post_processor"] = {{"type", "RobertaProcessing"},
                            {"cls", {"<|endoftext|>", 995}},
                            {"sep", {"<|pad|>", 996}},
                            {"trim_offsets", true},
                            {"add_prefix_space", false}};
  return load(file);
}

TEST(Questions, WindowsAndTokensOfAnswersAreThoseOfTransformers) {
  const auto bert = word_piece(), bpe = roberta();
  int64_t windows = 0, held = 0, typed = 0;
  for (const json& expected : lines("questions.jsonl")) {
    const bool pieces = expected.at("tokenizer") == "word_piece";
    const std::string text = row("  " + expected.at("question").get<std::string>(),
                                 expected.at("context"), expected.at("answers"));
    const auto set = loaded(pieces ? *bert : *bpe, text,
                            options_of(expected.at("max_length"), expected.at("stride"), true));
    ASSERT_TRUE(set.has_value()) << set.error().to_string();
    ASSERT_EQ((*set)->samples(), std::ssize(expected.at("windows"))) << expected;
    EXPECT_EQ((*set)->questions(), 1);
    int64_t sample = 0;
    for (const json& window : expected.at("windows")) {
      const TaskRows rows = (*set)->range(sample, 1);
      const size_t length = window.at("ids").size();
      EXPECT_EQ(json(std::vector(rows.ids.begin(), rows.ids.begin() + std::ssize(window["ids"]))),
                window.at("ids"));
      EXPECT_EQ(std::ranges::count(rows.valid, 1),
                rows.valid.empty() ? 0 : std::ssize(window["ids"]))
          << length;
      EXPECT_THAT(rows.labels, ElementsAre(window.at("start"), window.at("end"))) << expected;
      if (pieces) {
        EXPECT_EQ(json(std::vector(rows.token_types.begin(),
                                   rows.token_types.begin() + static_cast<int64_t>(length))),
                  window.at("types"));
        ++typed;
      }
      ASSERT_EQ(rows.windows.size(), 1U);
      EXPECT_EQ(rows.windows[0].sample, sample);
      EXPECT_EQ(rows.windows[0].first, window.at("first"));
      json offsets = json::array();
      for (const TokenOffsets& token : (*set)->window_offsets(sample)) {
        offsets.push_back({token.begin, token.end});
      }
      EXPECT_EQ(offsets, window.at("offsets")) << expected;
      EXPECT_EQ(rows.windows[0].tokens, std::ssize(offsets));
      EXPECT_EQ((*set)->question_of(sample), 0);
      held += rows.labels[0] > 0 ? 1 : 0;
      ++sample;
      ++windows;
    }
  }
  EXPECT_GT(windows, 80);
  EXPECT_GT(held, 15);
  EXPECT_GT(typed, 30);
}

// Of several answers the first is learned; without one the first token is.
TEST(Questions, TheFirstAnswerIsLearned) {
  const auto tokenizer = word_piece();
  const json both = {{"text", {"king", "man"}}, {"answer_start", {10, 2}}};
  const std::string text = row("a day", "a man, a king", both);
  const std::string second = row("a day", "a man, a king", at("man", 2));
  const auto set =
      loaded(*tokenizer, text + row("a day", "a man", kNone) + second + second, options_of(32, 4));
  ASSERT_FALSE(set.has_value()) << "the first answer does not stand there";
  json right = both;
  right["answer_start"] = {9, 2};
  const auto good = loaded(
      *tokenizer, row("a day", "a man, a king", right) + row("a day", "a man", kNone) + second,
      options_of(32, 4));
  ASSERT_TRUE(good.has_value()) << good.error().to_string();
  const TaskRows rows = (*good)->range(0, 3);
  EXPECT_GT(rows.labels[0], rows.labels[4]);
  EXPECT_EQ(rows.labels[2], 0);
  EXPECT_EQ(rows.labels[3], 0);
  EXPECT_EQ((*good)->questions(), 0) << "training data keeps no texts";
  EXPECT_EQ(rows.labels.size(), 6U);
}

TEST(Questions, BadRowsAreRefusedByKeyAndRule) {
  const auto tokenizer = word_piece();
  const std::string context = R"("question": "a", "context": "déjà a king", "answers": )";
  const std::pair<std::string, const char*> wrong[] = {
      {R"({"question": "a", "context": "b"})", "answers is missing"},
      {R"({"question": "a", "answers": {"text": [], "answer_start": []}})", "context is missing"},
      {R"({"question": "a", "context": 1, "answers": {}})", "context must be a string"},
      {"{" + context + R"("king"})", "answers must be an object"},
      {"{" + context + R"({"text": ["king"]}})", "answers.answer_start must be a list"},
      {"{" + context + R"({"text": "king", "answer_start": [7]}})", "answers.text must be a list"},
      {"{" + context + R"({"text": ["king"], "answer_start": [7, 8]}})",
       "answers.answer_start must have one for each text, of which there are 1 (got 2 elements)"},
      {"{" + context + R"({"text": ["king", 3], "answer_start": [7, 8]}})",
       "answers.text[1] must be a string"},
      {"{" + context + R"({"text": [""], "answer_start": [7]}})",
       "answers.text[0] must be a string"},
      {"{" + context + R"({"text": ["king"], "answer_start": ["7"]}})",
       "answers.answer_start[0] must be an integer"},
      {"{" + context + R"({"text": ["king"], "answer_start": [6]}})",
       "answers.answer_start[0] must be where the answer \"king\" begins in the context"},
      {"{" + context + R"({"text": ["king"], "answer_start": [8]}})",
       "answers.answer_start[0] must leave the answer within the context, which has 11 characters"},
      {"{" + context + R"({"text": ["king"], "answer_start": [-1]}})",
       "must leave the answer within"},
      {"{" + context + R"({"text": ["king"], "answer_start": [18446744073709551615]}})",
       "must leave the answer within"},
      {R"({"question": "", "context": "a", "answers": {"text": [], "answer_start": []}})",
       "question must not be empty"},
      {R"({"question": "a", "context": "", "answers": {"text": [], "answer_start": []}})",
       "context must not be empty"}};
  const std::string good = row("a", "déjà a king", at("king", 7));
  for (const auto& [bad, rule] : wrong) {
    const auto set = loaded(*tokenizer, good + bad + "\n", options_of(32, 4));
    ASSERT_FALSE(set.has_value()) << bad;
    EXPECT_THAT(set.error().to_string(), HasSubstr("questions.jsonl line 2: ")) << bad;
    EXPECT_THAT(set.error().to_string(), HasSubstr(rule));
  }
}

TEST(Questions, OneThatLeavesNoRoomIsRefused) {
  const auto tokenizer = word_piece();
  const std::string asks = "a man a king a day a man a king";  // 10 tokens
  const auto set = loaded(*tokenizer, row(asks, "a man a king a man a king", kNone),
                          options_of(18, 5));  // 3 around, so 5 for the context
  ASSERT_FALSE(set.has_value());
  EXPECT_THAT(set.error().to_string(),
              HasSubstr("line 1: question must leave room for more tokens of the context than "
                        "data.stride = 5 in a row of training.sequence_length = 18"));
  EXPECT_TRUE(loaded(*tokenizer, row(asks, "a man", kNone), options_of(18, 5)).has_value())
      << "a context that fits needs no window";
  EXPECT_TRUE(loaded(*tokenizer, row(asks, "a man a king a man a king", kNone), options_of(18, 4))
                  .has_value());
  EXPECT_FALSE(loaded(*make_byte_tokenizer(), row("a", "b", kNone), options_of(18, 5)).has_value());
}

TEST(Answers, AreComparedAsSquadCompares) {
  EXPECT_THAT(compared_words("The  U.S. \"Élan\" of an answer-key, a\tday"),
              ElementsAre("us", "élan", "of", "answerkey", "day"));
  EXPECT_THAT(compared_words("\u201cthe king\u201d"), ElementsAre("\u201c", "king\u201d"));
  EXPECT_THAT(compared_words("theatre an_d A"), ElementsAre("theatre", "and"));
  EXPECT_TRUE(is_exact("the King!", "king"));
  EXPECT_FALSE(is_exact("kings", "king"));
  EXPECT_TRUE(is_exact("", "the"));
  EXPECT_DOUBLE_EQ(word_f1("a red red king", "the red king of day"), 2 * 2.0 / 7);
  EXPECT_EQ(word_f1("king", "man"), 0);
  EXPECT_EQ(word_f1("", ""), 1);
  EXPECT_EQ(word_f1("", "man"), 0);
}

// Of a question's windows the one with the largest score; none where that scores more in all of
// them, and any question of the data has no answer.
TEST(Answers, AreScoredByQuestions) {
  const auto tokenizer = word_piece();
  const std::string two = row("a day", "a man a king a man a king", at("king", 8));
  const DatasetOptions options = options_of(9, 1, true);  // 4 tokens of the context at once
  const auto scores = [&](const std::string& rows, const std::vector<FoundAnswer>& found) {
    const auto set = loaded(*tokenizer, rows, options);
    EXPECT_TRUE(set.has_value()) << set.error().to_string();
    const auto all = answer_scores(**set, found);
    return std::vector{all.at("exact_match"), all.at("f1")};
  };
  const std::vector<FoundAnswer> found{{0, {3, 3}, 5, 9}, {1, {0, 1}, 4, 8}, {2, {-1, -1}, 0, 7}};
  EXPECT_THAT(scores(two, found), ElementsAre(1, 1));
  std::vector<FoundAnswer> other = found;
  other[1].score = 6;  // "king a", of which the article does not count
  EXPECT_THAT(scores(two, other), ElementsAre(1, 1));
  other[1].span = {0, 2};  // "king a man"
  EXPECT_THAT(scores(two, other), ElementsAre(0, 2.0 / 3));
  const std::string none = row("a day", "a man", kNone);
  other = found;
  other.push_back({3, {1, 1}, 1, 0});
  EXPECT_THAT(scores(two + none, other), ElementsAre(0, 0)) << "its none scores 7, above 5";
  other[2].none_score = 4;
  EXPECT_THAT(scores(two + none, other), ElementsAre(0.5, 0.5)) << "the other's is below";
  other[3].none_score = 2;
  EXPECT_THAT(scores(two + none, other), ElementsAre(1, 1));
}

}  // namespace
}  // namespace weft
