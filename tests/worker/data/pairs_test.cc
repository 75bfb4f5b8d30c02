// Pairs of texts: rows, token types and cuts against encodings made by the `tokenizers` package.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "tests/worker/data/tokenizer_fixtures.h"
#include "worker/data/dataset.h"

namespace weft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Pair {
  std::string text, pair;
};

Result<std::shared_ptr<const Dataset>> loaded(const Tokenizer& tokenizer,
                                              const std::vector<Pair>& pairs, int64_t length,
                                              SampleKind kind = SampleKind::kUnlabeled) {
  DatasetOptions options;
  options.kind = kind;
  options.source.pair_key = "text_pair";
  options.sequence_length = length;
  const auto documents = [&](const std::function<Status(const Document&)>& visit) -> Status {
    int64_t line = 0;
    for (const Pair& pair : pairs) {
      Document document;
      document.text = pair.text;
      document.pair = pair.pair;
      document.file = "pairs.jsonl";
      document.line = ++line;
      WEFT_RETURN_IF_ERROR(visit(document));
    }
    return {};
  };
  return Dataset::load(documents, options, tokenizer);
}

std::vector<int64_t> ids_of(const TaskRows& rows, int64_t row) {
  std::vector<int64_t> ids;
  for (int64_t token = 0; token < rows.tokens; ++token) {
    const auto at = static_cast<size_t>(row * rows.tokens + token);
    if (rows.valid.empty() || rows.valid[at] != 0) ids.push_back(rows.ids[at]);
  }
  return ids;
}

std::unique_ptr<Tokenizer> word_piece() {
  return load(json::parse(fixture("word_piece_tokenizer.json")));
}

TEST(Pairs, ATextWithoutATokenIsWhatStandsAroundIt) {
  const auto tokenizer = word_piece();
  DatasetOptions options;
  options.kind = SampleKind::kUnlabeled;
  options.sequence_length = 8;
  const auto load_text = [&](std::string_view text) {
    return Dataset::load(
        [&](const std::function<Status(const Document&)>& visit) {
          Document document;
          document.text = text;
          document.file = "--text";
          return visit(document);
        },
        options, *tokenizer);
  };
  std::vector<int64_t> around(tokenizer->prefix_ids().begin(), tokenizer->prefix_ids().end());
  around.insert(around.end(), tokenizer->suffix_ids().begin(), tokenizer->suffix_ids().end());
  for (const char* text : {"", "  \n"}) {
    const auto set = load_text(text);
    ASSERT_TRUE(set.has_value()) << set.error().to_string();
    EXPECT_EQ(ids_of((*set)->range(0, 1), 0), around);
  }
  options.kind = SampleKind::kClassification;  // from which something is to be learned
  options.labels = 2;
  options.source.format = InputFormat::kJsonl;
  options.source.label_key = "label";
  EXPECT_THAT(load_text("").error().to_string(), HasSubstr("must not be empty"));
}

// As XLNet's tokenizer has it, whose last token is of a segment of its own.
TEST(Pairs, OneTextHasTheTypesOfItsTemplate) {
  json file = json::parse(fixture("word_piece_tokenizer.json"));
  const int64_t separator = word_piece()->suffix_ids().front();
  const int64_t end = word_piece()->prefix_ids().front();
  const auto special = [](const char* name, int64_t type) {
    return json{{"SpecialToken", {{"id", name}, {"type_id", type}}}};
  };
  const auto named = [](const char* name, int64_t id) {
    return json{{"id", name}, {"ids", {id}}, {"tokens", {name}}};
  };
  file["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"Sequence", {{"id", "A"}, {"type_id", 1}}}}, special("<sep>", 0), special("<cls>", 2)}},
      {"pair", json::array()},
      {"special_tokens", {{"<sep>", named("<sep>", separator)}, {"<cls>", named("<cls>", end)}}}};
  const auto tokenizer = load(file);
  DatasetOptions options;
  options.kind = SampleKind::kUnlabeled;
  options.sequence_length = 16;
  const auto set = Dataset::load(
      [&](const std::function<Status(const Document&)>& visit) -> Status {
        for (const char* text : {"one", "one two three"}) {
          Document document;
          document.text = text;
          document.file = "--text";
          WEFT_RETURN_IF_ERROR(visit(document));
        }
        return {};
      },
      options, *tokenizer);
  ASSERT_TRUE(set.has_value()) << set.error().to_string();
  const TaskRows rows = (*set)->range(0, 2);
  for (const int64_t row : {0, 1}) {
    const std::vector<int64_t> ids = ids_of(rows, row);
    EXPECT_EQ(ids.back(), end);
    std::vector<int64_t> types(ids.size(), 1);
    types[ids.size() - 2] = 0;
    types.back() = 2;
    types.resize(static_cast<size_t>(rows.tokens), 0);  // padding
    const auto first = rows.token_types.begin() + row * rows.tokens;
    EXPECT_EQ(std::vector<int64_t>(first, first + rows.tokens), types) << row;
  }
}

TEST(Pairs, LongestFirstAsTheFixture) {
  const auto tokenizer = word_piece();
  int cut = 0;
  const auto cases = lines("word_piece_pairs.jsonl");
  EXPECT_GE(cases.size(), 20U);
  for (const json& expected : cases) {
    const auto set =
        loaded(*tokenizer, {{expected.at("text"), expected.at("pair")}}, expected.at("max_length"));
    ASSERT_TRUE(set.has_value()) << set.error().to_string();
    const TaskRows rows = (*set)->range(0, 1);
    EXPECT_EQ(json(ids_of(rows, 0)), expected.at("ids")) << expected;
    std::vector<int64_t> types = rows.token_types;
    types.resize(expected.at("ids").size());
    EXPECT_EQ(json(types), expected.at("type_ids")) << expected;
    cut += (*set)->dropped_tokens(0) > 0 ? 1 : 0;
  }
  EXPECT_GE(cut, 10);
}

TEST(Pairs, TheOddTokenIsTheLongerTexts) {
  const auto kept = [](int64_t first, int64_t second, int64_t room) {
    const PairLengths lengths = cut_longest_first({first, second}, room);
    return std::array{lengths.first, lengths.second};
  };
  EXPECT_THAT(kept(3, 4, 7), ElementsAre(3, 4));
  EXPECT_THAT(kept(2, 9, 7), ElementsAre(2, 5));
  EXPECT_THAT(kept(9, 2, 7), ElementsAre(5, 2));
  EXPECT_THAT(kept(9, 8, 7), ElementsAre(4, 3));
  EXPECT_THAT(kept(8, 9, 7), ElementsAre(3, 4));
  EXPECT_THAT(kept(9, 9, 7), ElementsAre(3, 4));
}

TEST(Pairs, OfRobertaHaveTwoSeparatorsAndOneType) {
  json file = bpe_file();
  file["post_processor"] = {
      {"type", "RobertaProcessing"}, {"cls", {"<|endoftext|>", 995}}, {"sep", {"<|pad|>", 996}}};
  const auto tokenizer = load(file);
  const auto a = tokenizer->encode("thread", false), b = tokenizer->encode("warp and", false);
  std::vector<int64_t> expected{995};
  expected.insert(expected.end(), a->begin(), a->end());
  expected.insert(expected.end(), {996, 996});
  expected.insert(expected.end(), b->begin(), b->end());
  expected.push_back(996);
  const auto set = loaded(*tokenizer, {{"thread", "warp and"}}, 64);
  ASSERT_TRUE(set.has_value()) << set.error().to_string();
  const TaskRows rows = (*set)->range(0, 1);
  EXPECT_EQ(ids_of(rows, 0), expected);
  EXPECT_TRUE(rows.token_types.empty());
}

// First texts, then second texts, each as a text of its own.
TEST(Pairs, OfAnEmbeddingAreTwoRows) {
  const auto tokenizer = word_piece();
  const auto set =
      loaded(*tokenizer, {{"a man", "a king"}, {"a day", "the night"}}, 16, SampleKind::kEmbedding);
  ASSERT_TRUE(set.has_value()) << set.error().to_string();
  EXPECT_EQ((*set)->samples(), 2);
  EXPECT_EQ((*set)->rows_per_sample(), 2);
  const std::array<Visit, 2> visits{Visit{0, 1}, Visit{0, 0}};
  const TaskRows rows = (*set)->rows(visits);
  ASSERT_EQ(rows.rows, 4);
  int64_t row = 0;
  for (const char* text : {"a day", "a man", "the night", "a king"}) {
    EXPECT_EQ(ids_of(rows, row++), *tokenizer->encode(text, true)) << text;
  }
  EXPECT_TRUE(rows.labels.empty());
  EXPECT_TRUE(rows.token_types.empty());
}

Result<std::shared_ptr<const Dataset>> choices(const Tokenizer& tokenizer,
                                               const std::string& rows) {
  DatasetOptions options;
  options.kind = SampleKind::kMultipleChoice;
  options.source.format = InputFormat::kJsonl;
  options.source.label_key = "label";
  options.source.pair_key = "choices";
  options.source.choices = options.labels = 3;
  options.sequence_length = 16;
  const auto documents = [&](const std::function<Status(const Document&)>& visit) {
    return for_each_row(rows, "choices.jsonl", options.source, visit);
  };
  return Dataset::load(documents, options, tokenizer);
}

// A row for each choice, those of a question one after the other.
TEST(Pairs, OfAChoiceAreItsQuestionsRows) {
  const auto tokenizer = word_piece();
  const auto set = choices(*tokenizer, R"({"text": "a man", "choices": ["a", "the king", "of"],)"
                                       R"( "label": 2}
{"text": "a day", "choices": ["man", "night", "a"], "label": 0}
)");
  ASSERT_TRUE(set.has_value()) << set.error().to_string();
  EXPECT_EQ((*set)->samples(), 2);
  EXPECT_EQ((*set)->rows_per_sample(), 3);
  EXPECT_TRUE((*set)->label_names().empty());
  const std::array<Visit, 2> visits{Visit{0, 1}, Visit{0, 0}};
  const TaskRows rows = (*set)->rows(visits);
  ASSERT_EQ(rows.rows, 6);
  EXPECT_THAT(rows.labels, ElementsAre(0, 2));
  const std::vector<Pair> given{{"a day", "man"}, {"a day", "night"},    {"a day", "a"},
                                {"a man", "a"},   {"a man", "the king"}, {"a man", "of"}};
  const auto alone = loaded(*tokenizer, given, 16);
  const TaskRows expected = (*alone)->range(0, 6);
  EXPECT_EQ(rows.ids, expected.ids);
  EXPECT_EQ(rows.valid, expected.valid);
  EXPECT_EQ(rows.token_types, expected.token_types);
}

TEST(Pairs, OfAChoiceAreRefusedByRowAndKey) {
  const auto tokenizer = word_piece();
  const std::string good = R"({"text": "a", "choices": ["a", "b", "c"], "label": 1})";
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"text": "a", "choices": ["a", "b"], "label": 1})",
       "choices must have 3, as the task has labels: 3 (got 2 texts)"},
      {R"({"text": "a", "choices": "a", "label": 1})", "choices must be a list of texts"},
      {R"({"text": "a", "choices": ["a", 2, "c"], "label": 1})", "choices[1] must be a string"},
      {R"({"text": "a", "choices": ["a", "b", ""], "label": 1})", "choices[2] must not be empty"},
      {R"({"text": "a", "label": 1})", "choices is missing"},
      {R"({"text": "a", "choices": ["a", "b", "c"], "label": 3})", "label must be in [0, 3)"},
      {R"({"text": "a", "choices": ["a", "b", "c"], "label": "b"})",
       "label must be the number of a choice, from 0"}};
  for (const auto& [row, rule] : wrong) {
    const auto set = choices(*tokenizer, good + "\n" + row + "\n");
    ASSERT_FALSE(set.has_value()) << row;
    EXPECT_THAT(set.error().to_string(), HasSubstr("choices.jsonl line 2: ")) << row;
    EXPECT_THAT(set.error().to_string(), HasSubstr(rule));
  }
}

TEST(Pairs, RefusesWhatIsNone) {
  const auto tokenizer = word_piece();
  const auto refusal = [&](const auto& set) {
    return set ? std::string("accepted") : set.error().to_string();
  };
  EXPECT_THAT(refusal(loaded(*tokenizer, {{"a", "b"}, {"a", ""}}, 16)),
              HasSubstr("pairs.jsonl line 2: text_pair must not be empty"));
  EXPECT_THAT(refusal(loaded(*tokenizer, {{"a", "b"}}, 4)),
              HasSubstr("sequence_length must exceed the 3 tokens"));
  EXPECT_THAT(refusal(loaded(*make_byte_tokenizer(), {{"a", "b"}}, 16)), HasSubstr("text_pair"));
}

TEST(Pairs, ATemplateHasBothTextsOnce) {
  json file = json::parse(fixture("word_piece_tokenizer.json"));
  json& pair = file["post_processor"]["pair"];
  const json whole = pair;
  pair.erase(3);
  EXPECT_THAT(load_tokenizer_json(file.dump()).error().to_string(), HasSubstr("pair"));
  pair = whole;
  pair[3]["Sequence"]["id"] = "A";
  EXPECT_THAT(load_tokenizer_json(file.dump()).error().to_string(), HasSubstr("pair[3]"));
}

}  // namespace
}  // namespace weft
