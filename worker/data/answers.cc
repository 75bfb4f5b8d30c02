#include "worker/data/answers.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "proto/base/check.h"
#include "proto/json/value.h"
#include "worker/data/dataset.h"
#include "worker/data/source_rows.h"
#include "worker/data/tokenizers/bert_text.h"
#include "worker/data/tokenizers/regex.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft {
namespace {

using nlohmann::json;

// The list under one of the two keys.
Result<const json*> list_at(const std::string& key, const json& value, const char* name,
                            const Document& document) {
  const auto found = value.find(name);
  if (found != value.end() && found->is_array()) return &*found;
  const std::string got = found == value.end() ? shown_json(value) : shown_json(*found);
  return fail(document.refuse(key + "." + name, got,
                              R"(must be a list, as in {"text": ["..."], "answer_start": [0]})"));
}

Status check_place(const std::string& key, const Answer& answer, const Document& document) {
  const int64_t all = tokenizers::count_code_points(document.pair);
  const int64_t end = answer.start + tokenizers::count_code_points(answer.text);
  if (answer.start < 0 || end > all) {
    return document.refuse(key, std::to_string(answer.start),
                           "must leave the answer within the context, which has " +
                               std::to_string(all) + " characters");
  }
  const std::string_view there = code_points_of(document.pair, answer.start, end);
  if (there == answer.text) return {};
  return document.refuse(key, std::to_string(answer.start),
                         "must be where the answer \"" + shortened(answer.text, 80) +
                             "\" begins in the context, where \"" + shortened(there, 80) +
                             "\" stands");
}

using Expression = std::shared_ptr<const tokenizers::Regex>;

bool is_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}

// The better of those that count; without any the empty one, which means that there is none.
template <typename Score>
auto best_of(const std::vector<Answer>& answers, Score&& score) {
  bool any = false;
  decltype(score("")) best = 0;
  for (const Answer& answer : answers) {
    if (compared_words(answer.text).empty()) continue;
    best = any ? std::max(best, score(answer.text)) : score(answer.text);
    any = true;
  }
  return any ? best : score("");
}

}  // namespace

Status read_answers(const std::string& key, const json& value, Document* document) {
  if (!value.is_object()) {
    return document->refuse(key, shown_json(value),
                            R"(must be an object, as in {"text": ["..."], "answer_start": [0]})");
  }
  WEFT_ASSIGN_OR_RETURN(const json* texts, list_at(key, value, "text", *document));
  WEFT_ASSIGN_OR_RETURN(const json* starts, list_at(key, value, "answer_start", *document));
  if (texts->size() != starts->size()) {
    return document->refuse(
        key + ".answer_start", std::to_string(starts->size()) + " elements",
        "must have one for each text, of which there are " + std::to_string(texts->size()));
  }
  for (size_t i = 0; i < texts->size(); ++i) {
    const std::string text_at = join_index(key + ".text", i);
    const std::string start_at = join_index(key + ".answer_start", i);
    const json &text = (*texts)[i], &start = (*starts)[i];
    if (!text.is_string() || text.get_ref<const std::string&>().empty()) {
      return document->refuse(text_at, shown_json(text), "must be a string that is not empty");
    }
    if (!start.is_number_integer()) {
      return document->refuse(start_at, shown_json(start), "must be an integer");
    }
    const bool large = start.is_number_unsigned() && start.get<uint64_t>() > INT32_MAX;
    const Answer answer{text.get<std::string>(), large ? INT32_MAX : start.get<int64_t>()};
    WEFT_RETURN_IF_ERROR(check_place(start_at, answer, *document));
    document->answers.push_back(answer);
  }
  return {};
}

std::string_view code_points_of(std::string_view text, int64_t begin, int64_t end) {
  const auto byte_of = [&](std::string_view of, int64_t point) {
    size_t at = 0;
    for (; point > 0 && at < of.size(); --point) {
      ++at;
      while (at < of.size() && (static_cast<unsigned char>(of[at]) & 0xC0) == 0x80) ++at;
    }
    return at;
  };
  text.remove_prefix(byte_of(text, begin));
  return text.substr(0, byte_of(text, end - begin));
}

TokenSpan covering_tokens(std::span<const TokenOffsets> window, const Answer& answer) {
  const int64_t end = answer.start + tokenizers::count_code_points(answer.text);
  if (window.empty() || window.front().begin > answer.start || window.back().end < end) return {};
  TokenSpan span{0, std::ssize(window) - 1};
  const auto at = [&](int64_t token) { return window[static_cast<size_t>(token)]; };
  while (span.first + 1 < std::ssize(window) && at(span.first + 1).begin <= answer.start) {
    ++span.first;
  }
  while (span.last > 0 && at(span.last - 1).end >= end) --span.last;
  return span;
}

std::vector<std::string> compared_words(std::string_view text) {
  const tokenizers::BertNormalizer small{.clean_text = false,
                                         .handle_chinese_chars = false,
                                         .strip_accents = false,
                                         .lowercase = true};
  std::string plain = small.apply(text, false).text;
  std::erase_if(plain, is_punctuation);
  std::string without;
  std::vector<std::string> words;
  static const Expression kArticle = *tokenizers::Regex::compile(R"(\b(a|an|the)\b)");
  static const Expression kWord = *tokenizers::Regex::compile(R"(\S+)");
  Status done = kArticle->for_each_stretch(plain, [&](tokenizers::Match stretch, bool article) {
    without += article ? " " : plain.substr(stretch.begin, stretch.end - stretch.begin);
    return Status();
  });
  if (done.ok()) {
    done = kWord->for_each_stretch(without, [&](tokenizers::Match stretch, bool word) {
      if (word) words.push_back(without.substr(stretch.begin, stretch.end - stretch.begin));
      return Status();
    });
  }
  WEFT_CHECK(done.ok(), "{}", done.to_string());
  return words;
}

bool is_exact(std::string_view found, std::string_view wanted) {
  return compared_words(found) == compared_words(wanted);
}

double word_f1(std::string_view found, std::string_view wanted) {
  std::vector<std::string> ours = compared_words(found), theirs = compared_words(wanted);
  if (ours.empty() || theirs.empty()) return ours == theirs ? 1 : 0;
  std::ranges::sort(ours);
  std::ranges::sort(theirs);
  std::vector<std::string> both;
  std::ranges::set_intersection(ours, theirs, std::back_inserter(both));
  return 2 * static_cast<double>(both.size()) / static_cast<double>(ours.size() + theirs.size());
}

std::vector<BestAnswer> best_answers(const Dataset& data, std::span<const FoundAnswer> found) {
  std::vector<BestAnswer> best(static_cast<size_t>(data.questions()));
  for (const FoundAnswer& window : found) {
    BestAnswer& so_far = best[static_cast<size_t>(data.question_of(window.sample))];
    const bool has = window.span.first >= 0;
    if (has && (so_far.answer == nullptr || window.score > so_far.answer->score)) {
      so_far.answer = &window;
    }
    if (so_far.none == nullptr || window.none_score < so_far.none->none_score) {
      so_far.none = &window;
    }
  }
  return best;
}

std::map<std::string, double> answer_scores(const Dataset& data,
                                            std::span<const FoundAnswer> found) {
  const std::vector<BestAnswer> best = best_answers(data, found);
  bool may_be_none = false;
  for (int64_t i = 0; i < data.questions(); ++i) may_be_none |= data.answers(i).empty();
  double exact = 0, f1 = 0;
  for (int64_t i = 0; i < data.questions(); ++i) {
    const BestAnswer& of = best[static_cast<size_t>(i)];
    std::string_view text;
    if (!of.is_none(may_be_none)) {
      const auto offsets = data.window_offsets(of.answer->sample);
      text =
          code_points_of(data.context(i), offsets[static_cast<size_t>(of.answer->span.first)].begin,
                         offsets[static_cast<size_t>(of.answer->span.last)].end);
    }
    exact += best_of(data.answers(i),
                     [&](std::string_view wanted) { return is_exact(text, wanted) ? 1.0 : 0.0; });
    f1 += best_of(data.answers(i), [&](std::string_view wanted) { return word_f1(text, wanted); });
  }
  const double count = static_cast<double>(std::max<int64_t>(1, data.questions()));
  return {{"exact_match", exact / count}, {"f1", f1 / count}};
}

}  // namespace weft
