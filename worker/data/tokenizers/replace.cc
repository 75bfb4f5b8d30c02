#include "worker/data/tokenizers/replace.h"

#include <algorithm>
#include <utility>

#include "worker/data/tokenizers/json_fields.h"

namespace weft::tokenizers {

Result<Replace> parse_replace(const json& section, const std::string& field) {
  WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "pattern", "content"}));
  const json& pattern = member(section, "pattern");
  WEFT_RETURN_IF_ERROR(check_object(field + ".pattern", pattern, {"String", "Regex"}));
  if (pattern.size() != 1) {
    return fail(wrong(field + ".pattern", pattern, "must have one of Regex and String"));
  }
  const char* kind = pattern.contains("Regex") ? "Regex" : "String";
  Replace result;
  WEFT_ASSIGN_OR_RETURN(result.pattern, string_at(field + ".pattern", pattern, kind));
  if (result.pattern.empty()) {
    return fail(wrong(field + ".pattern", result.pattern, "must not be empty"));
  }
  if (pattern.contains("Regex")) {
    auto regex = Regex::compile(result.pattern);
    if (!regex) {
      const Status& error = regex.error();
      return fail(Status::invalid(field + ".pattern", error.value(), error.rule()));
    }
    result.regex = std::move(*regex);
  }
  WEFT_ASSIGN_OR_RETURN(result.content, string_at(field, section, "content"));
  return result;
}

std::string replaced(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string result;
  result.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t found = std::min(text.find(pattern, at), text.size());
    result.append(text.substr(at, found - at));
    if (found == text.size()) break;
    result.append(content);
    at = found + pattern.size();
  }
  return result;
}

}  // namespace weft::tokenizers
