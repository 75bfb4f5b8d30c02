#include "worker/data/tokenizers/added_tokens.h"

#include <algorithm>

#include "worker/data/tokenizers/json_fields.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft::tokenizers {
namespace {

constexpr size_t kContentBytesMax = 4096;

Result<AddedToken> parse_token(const std::string& field, const json& entry) {
  WEFT_RETURN_IF_ERROR(check_object(
      field, entry, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}));
  AddedToken token;
  WEFT_ASSIGN_OR_RETURN(token.id, id_of(field + ".id", member(entry, "id")));
  WEFT_ASSIGN_OR_RETURN(token.content, string_at(field, entry, "content"));
  if (token.content.empty() || token.content.size() > kContentBytesMax) {
    return fail(wrong(field + ".content", entry.at("content"), "must have 1 to 4096 bytes"));
  }
  token.written = token.content;
  WEFT_ASSIGN_OR_RETURN(token.special, bool_at(field, entry, "special", false));
  WEFT_ASSIGN_OR_RETURN(token.single_word, bool_at(field, entry, "single_word", false));
  WEFT_ASSIGN_OR_RETURN(token.lstrip, bool_at(field, entry, "lstrip", false));
  WEFT_ASSIGN_OR_RETURN(token.rstrip, bool_at(field, entry, "rstrip", false));
  WEFT_ASSIGN_OR_RETURN(token.normalized, bool_at(field, entry, "normalized", !token.special));
  return token;
}

}  // namespace

void TokenMatcher::add(const AddedToken& token) {
  const std::string& text = token.written;
  if (text.empty()) return;
  std::vector<size_t>& lengths = lengths_[static_cast<unsigned char>(text.front())];
  if (std::find(lengths.begin(), lengths.end(), text.size()) == lengths.end()) {
    lengths.push_back(text.size());
    std::sort(lengths.rbegin(), lengths.rend());
  }
  for (size_t at = 0, bytes = 0; at < text.size(); at += bytes) {
    characters_.insert(code_point_at(std::string_view(text).substr(at), &bytes));
  }
  strips_ |= token.lstrip || token.rstrip;
  tokens_.emplace(text, token);
}

// No token stands across or ends at what lies between two characters that no token has, nor does
// one take the white space before it; what begins behind that would be another stretch.
bool TokenMatcher::apart(std::string_view before, std::string_view after) const {
  for (const std::string_view character : {before, after}) {
    size_t bytes = 0;
    if (characters_.contains(code_point_at(character, &bytes))) return false;
  }
  return !strips_ || space_at_start(before) == 0;
}

const AddedToken* TokenMatcher::longest_at(std::string_view text) const {
  for (const size_t length : lengths_[static_cast<unsigned char>(text.front())]) {
    if (length > text.size()) continue;
    const auto found = tokens_.find(text.substr(0, length));
    if (found != tokens_.end()) return &found->second;
  }
  return nullptr;
}

Status TokenMatcher::for_each_stretch(std::string_view text,
                                      const std::function<Status(const Stretch&)>& visit) const {
  size_t covered = 0;
  for (size_t at = tokens_.empty() ? text.size() : 0; at < text.size();) {
    const AddedToken* token = longest_at(text.substr(at));
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + token->written.size();
    at = end;
    if (begin < covered) continue;  // white space that the token before took
    if (token->single_word &&
        (ends_in_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) {
      continue;
    }
    if (token->lstrip) begin -= space_at_end(text.substr(covered, begin - covered));
    if (token->rstrip) end += space_at_start(text.substr(end));
    if (covered < begin) WEFT_RETURN_IF_ERROR(visit({-1, covered, begin}));
    WEFT_RETURN_IF_ERROR(visit({token->id, begin, end}));
    covered = end;
  }
  return covered < text.size() ? visit({-1, covered, text.size()}) : Status();
}

Result<std::vector<AddedToken>> parse_added_tokens(const json& section, const WordModel& model) {
  std::vector<AddedToken> tokens;
  if (section.is_null()) return tokens;
  if (!section.is_array()) return fail(wrong("added_tokens", section, "must be an array"));
  std::map<std::string, int64_t> ids;
  int64_t largest = -1;
  for (size_t i = 0; i < section.size(); ++i) {
    const std::string field = "added_tokens[" + std::to_string(i) + "]";
    WEFT_ASSIGN_OR_RETURN(AddedToken token, parse_token(field, section[i]));
    if (ids.contains(token.content)) {
      return fail(wrong(field + ".content", token.content, "stands in the list twice"));
    }
    const int64_t expected =
        model.find(token.content).value_or(std::max(largest + 1, model.vocab_size()));
    if (token.id != expected) {
      return fail(wrong(field + ".id", token.id,
                        "must be " + std::to_string(expected) +
                            ": the vocabulary's id, or else the next one behind it"));
    }
    ids.emplace(token.content, token.id);
    largest = std::max(largest, token.id);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace weft::tokenizers
