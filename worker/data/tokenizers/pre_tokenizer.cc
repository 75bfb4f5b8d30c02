#include "worker/data/tokenizers/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "worker/data/tokenizers/bert_text.h"
#include "worker/data/tokenizers/json_fields.h"
#include "worker/data/tokenizers/replace.h"

namespace weft::tokenizers {
namespace {

// GPT-2's words (Radford et al. 2019): contractions, letters, digits, other signs, each with one
// space in front; white space but for its last space before a word.
constexpr std::string_view kWords =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string escaped(std::string_view literal) {
  std::string pattern;
  for (const char c : literal) {
    if (std::string_view(R"(\.+*?()|[]{}^$#&-~/ )").find(c) != std::string_view::npos) {
      pattern += '\\';
    }
    pattern += c;
  }
  return pattern;
}

Result<SplitStep> parse_split(const json& component, const std::string& field) {
  WEFT_RETURN_IF_ERROR(check_object(field, component, {"type", "pattern", "behavior", "invert"}));
  SplitStep step;
  WEFT_ASSIGN_OR_RETURN(step.invert, bool_at(field, component, "invert", false));
  WEFT_ASSIGN_OR_RETURN(const std::string behavior, string_at(field, component, "behavior"));
  static constexpr std::array<std::pair<const char*, SplitBehavior>, 5> kBehaviors = {
      {{"Isolated", SplitBehavior::kIsolated},
       {"Removed", SplitBehavior::kRemoved},
       {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
       {"MergedWithNext", SplitBehavior::kMergedWithNext},
       {"Contiguous", SplitBehavior::kContiguous}}};
  const auto found = std::find_if(kBehaviors.begin(), kBehaviors.end(),
                                  [&](const auto& entry) { return behavior == entry.first; });
  if (found == kBehaviors.end()) {
    return fail(wrong(field + ".behavior", behavior, "is not a behavior of Split"));
  }
  step.behavior = found->second;
  const json& pattern = member(component, "pattern");
  const std::string pattern_field = field + ".pattern";
  WEFT_RETURN_IF_ERROR(check_object(pattern_field, pattern, {"Regex", "String"}));
  if (pattern.size() != 1) {
    return fail(wrong(pattern_field, pattern, "must have one of Regex and String"));
  }
  const bool literal = pattern.contains("String");
  WEFT_ASSIGN_OR_RETURN(std::string text,
                        string_at(pattern_field, pattern, literal ? "String" : "Regex"));
  if (text.empty()) return fail(wrong(pattern_field, pattern, "must not be empty"));
  auto regex = Regex::compile(literal ? escaped(text) : text);
  if (!regex) {
    const Status& error = regex.error();
    return fail(Status::invalid(pattern_field, error.value(), error.rule()));
  }
  step.regex = std::move(*regex);
  return step;
}

// Digits and the like (Unicode's category N, what Rust's char::is_numeric takes) apart from the
// rest, one by one or in runs.
Result<SplitStep> parse_digits(const json& component, const std::string& field) {
  WEFT_RETURN_IF_ERROR(check_object(field, component, {"type", "individual_digits"}));
  SplitStep step;
  WEFT_ASSIGN_OR_RETURN(const bool each, bool_at(field, component, "individual_digits", false));
  step.behavior = each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
  WEFT_ASSIGN_OR_RETURN(step.regex, Regex::compile(R"(\p{N})"));
  return step;
}

}  // namespace

Result<std::vector<Match>> split_pieces(const SplitStep& step, std::string_view text) {
  std::vector<std::pair<Match, bool>> stretches;
  WEFT_RETURN_IF_ERROR(step.regex->for_each_stretch(text, [&](Match match, bool matched) {
    stretches.emplace_back(match, matched != step.invert);
    return Status();
  }));
  const SplitBehavior behavior = step.behavior;
  const bool backward = behavior == SplitBehavior::kMergedWithNext;
  if (backward) std::reverse(stretches.begin(), stretches.end());
  std::vector<Match> pieces;
  bool last = false;
  for (const auto& [match, matched] : stretches) {
    const bool merge =
        !pieces.empty() && (behavior == SplitBehavior::kContiguous
                                ? matched == last
                                : behavior != SplitBehavior::kIsolated &&
                                      behavior != SplitBehavior::kRemoved && matched && !last);
    if (merge) {
      (backward ? pieces.back().begin : pieces.back().end) = backward ? match.begin : match.end;
    } else if (behavior != SplitBehavior::kRemoved || !matched) {
      pieces.push_back(match);
    }
    last = matched;
  }
  if (backward) std::reverse(pieces.begin(), pieces.end());
  std::erase_if(pieces, [](const Match& piece) { return piece.begin == piece.end; });
  return pieces;
}

Result<PreTokenizer> PreTokenizer::parse(const json& section) {
  PreTokenizer result;
  if (section.is_null()) return result;
  const std::string field = "pre_tokenizer";
  if (member(section, "type") == "Sequence") {
    WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "pretokenizers"}));
    const json& components = member(section, "pretokenizers");
    if (!components.is_array() || components.empty() || components.size() > 64) {
      return fail(wrong(field + ".pretokenizers", components, "must be an array of 1 to 64"));
    }
    for (size_t i = 0; i < components.size(); ++i) {
      WEFT_RETURN_IF_ERROR(result.add(components[i],
                                      field + ".pretokenizers[" + std::to_string(i) + "]",
                                      i + 1 == components.size()));
    }
  } else {
    WEFT_RETURN_IF_ERROR(result.add(section, field, true));
  }
  return result;
}

Status PreTokenizer::add(const json& component, const std::string& field, bool last) {
  if (!component.is_object()) {
    return wrong(
        field, component,
        "must be null, Metaspace, BertPreTokenizer, ByteLevel or a Sequence that ends with one");
  }
  const json& type = member(component, "type");
  if (white_space_ && (type != "Metaspace" || !last)) {
    return wrong(field + ".type", type,
                 "must be Metaspace, at the end: no other is supported behind WhitespaceSplit");
  }
  if ((type == "Split" || type == "Digits") && !last) {
    WEFT_ASSIGN_OR_RETURN(SplitStep step, type == "Split" ? parse_split(component, field)
                                                          : parse_digits(component, field));
    steps_.push_back(std::move(step));
    return {};
  }
  if (type == "ByteLevel" && last) return add_byte_level(component, field);
  if (type == "WhitespaceSplit" && !last && steps_.empty()) {
    WEFT_RETURN_IF_ERROR(check_object(field, component, {"type"}));
    white_space_ = true;
    return {};
  }
  if (type == "Metaspace" && last && steps_.empty()) {
    WEFT_ASSIGN_OR_RETURN(metaspace_, parse_metaspace(component, field));
    // Which word comes first in a text, the `tokenizers` package asks before normalization.
    if (white_space_ && metaspace_->prepend == PrependScheme::kFirst) {
      return wrong(field + ".prepend_scheme", member(component, "prepend_scheme"),
                   "must be always or never behind WhitespaceSplit");
    }
    return {};
  }
  if (type == "BertPreTokenizer" && last && steps_.empty()) {
    WEFT_RETURN_IF_ERROR(check_object(field, component, {"type"}));
    bert_ = true;
    return {};
  }
  return wrong(
      field + ".type", type,
      !last ? "must be Split, Digits or, first, WhitespaceSplit here: others are not supported"
      : steps_.empty()
          ? "must be ByteLevel, Metaspace or BertPreTokenizer here: other pre-tokenizers are not "
            "supported"
          : "must be ByteLevel here: other pre-tokenizers are not supported");
}

Status PreTokenizer::add_byte_level(const json& component, const std::string& field) {
  WEFT_RETURN_IF_ERROR(
      check_object(field, component, {"type", "add_prefix_space", "trim_offsets", "use_regex"}));
  byte_level_ = true;
  WEFT_ASSIGN_OR_RETURN(add_prefix_space_, bool_at(field, component, "add_prefix_space", true));
  WEFT_ASSIGN_OR_RETURN(const bool trim, bool_at(field, component, "trim_offsets", true));
  static_cast<void>(trim);  // of the post-processor only
  WEFT_ASSIGN_OR_RETURN(const bool use_regex, bool_at(field, component, "use_regex", true));
  if (use_regex) {
    WEFT_ASSIGN_OR_RETURN(words_, Regex::compile(kWords));
  }
  return {};
}

Status PreTokenizer::for_each_word(std::string_view text, Start start,
                                   const std::function<Status(const Word&)>& visit) const {
  if (text.empty()) return {};
  if (byte_level_) return split(0, text, 0, visit);
  if (white_space_) return white_space(text, visit);
  if (metaspace_) return metaspace(text, start, visit);
  if (bert_) return bert_words(text, visit);
  return visit(Word{text, text});
}

Status PreTokenizer::white_space(std::string_view text,
                                 const std::function<Status(const Word&)>& visit) const {
  size_t begin = 0;
  const auto add = [&](size_t end) -> Status {
    if (begin == end) return {};
    return metaspace(text.substr(begin, end - begin), Start::kStretch, [&](Word word) {
      word.piece += begin;
      return visit(word);
    });
  };
  for (size_t at = 0, bytes = 0; at < text.size(); at += bytes) {
    if (!is_bert_space(code_point_at(text.substr(at), &bytes))) continue;
    WEFT_RETURN_IF_ERROR(add(at));
    begin = at + bytes;
  }
  return add(text.size());
}

// Between white space, and each sign by itself.
Status PreTokenizer::bert_words(std::string_view text,
                                const std::function<Status(const Word&)>& visit) {
  size_t begin = 0;
  const auto add = [&](size_t from, size_t to) -> Status {
    return from == to ? Status() : visit(Word{text.substr(from, to - from), text});
  };
  for (size_t at = 0, bytes = 0; at < text.size(); at += bytes) {
    const uint32_t code_point = code_point_at(text.substr(at), &bytes);
    const bool sign = is_bert_punctuation(code_point);
    if (!sign && !is_bert_space(code_point)) continue;
    WEFT_RETURN_IF_ERROR(add(begin, at));
    if (sign) WEFT_RETURN_IF_ERROR(add(at, at + bytes));
    begin = at + bytes;
  }
  return add(begin, text.size());
}

Status PreTokenizer::metaspace(std::string_view text, Start start,
                               const std::function<Status(const Word&)>& visit) const {
  const std::string& mark = metaspace_->replacement;
  const PrependScheme scheme = metaspace_->prepend;
  const bool prepends = start == Start::kText
                            ? scheme != PrependScheme::kNever
                            : start == Start::kStretch && scheme == PrependScheme::kAlways;
  const bool shifted = prepends && text.front() != ' ' && !text.starts_with(mark);
  const std::string whole = (shifted ? mark : "") + replaced(text, " ", mark);
  const std::string_view rest = whole;
  for (size_t begin = 0; begin < rest.size();) {
    const size_t found = metaspace_->split ? rest.find(mark, begin + 1) : rest.size();
    const size_t end = std::min(found, rest.size());
    WEFT_RETURN_IF_ERROR(visit(Word{rest.substr(begin, end - begin), rest, 0, shifted}));
    begin = end;
  }
  return {};
}

Status PreTokenizer::split(size_t step, std::string_view text, size_t begin,
                           const std::function<Status(const Word&)>& visit) const {
  if (step == steps_.size()) return byte_level(text, begin, visit);
  const SplitStep& what = steps_[step];
  if (what.behavior == SplitBehavior::kIsolated) {  // needs no list of the pieces
    return what.regex->for_each_stretch(text, [&](Match piece, bool) -> Status {
      if (piece.begin == piece.end) return {};
      return split(step + 1, text.substr(piece.begin, piece.end - piece.begin), begin + piece.begin,
                   visit);
    });
  }
  WEFT_ASSIGN_OR_RETURN(const std::vector<Match> pieces, split_pieces(what, text));
  for (const Match& piece : pieces) {
    WEFT_RETURN_IF_ERROR(split(step + 1, text.substr(piece.begin, piece.end - piece.begin),
                               begin + piece.begin, visit));
  }
  return {};
}

Status PreTokenizer::byte_level(std::string_view text, size_t begin,
                                const std::function<Status(const Word&)>& visit) const {
  std::string with_space;
  const bool shifted = add_prefix_space_ && text.front() != ' ';
  if (shifted) {
    with_space.reserve(text.size() + 1);
    with_space += ' ';
    with_space += text;
    text = with_space;
  }
  if (words_ == nullptr) return visit(Word{text, text, begin, shifted});
  return words_->for_each_stretch(text, [&](Match word, bool) {
    return visit(Word{text.substr(word.begin, word.end - word.begin), text, begin, shifted});
  });
}

}  // namespace weft::tokenizers
