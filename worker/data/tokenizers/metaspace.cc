#include "worker/data/tokenizers/metaspace.h"

#include <array>
#include <utility>

#include "proto/json/utf8.h"
#include "worker/data/tokenizers/json_fields.h"

namespace weft::tokenizers {
namespace {

Result<PrependScheme> parse_scheme(const json& section, const std::string& field) {
  static constexpr std::array<std::pair<const char*, PrependScheme>, 3> kSchemes = {
      {{"always", PrependScheme::kAlways},
       {"first", PrependScheme::kFirst},
       {"never", PrependScheme::kNever}}};
  const json& value = member(section, "prepend_scheme");
  if (value.is_null()) return PrependScheme::kAlways;
  for (const auto& [name, scheme] : kSchemes) {
    if (value == name) return scheme;
  }
  return fail(wrong(field + ".prepend_scheme", value, "must be always, first or never"));
}

}  // namespace

bool is_one_character(const std::string& text) {
  return !text.empty() && utf8_sequence_bytes(text) == text.size();
}

Result<Metaspace> parse_metaspace(const json& section, const std::string& field) {
  WEFT_RETURN_IF_ERROR(check_object(
      field, section,
      {"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"}));
  Metaspace result;
  WEFT_ASSIGN_OR_RETURN(result.replacement, string_at(field, section, "replacement"));
  if (!is_one_character(result.replacement)) {
    return fail(wrong(field + ".replacement", result.replacement, "must be one character"));
  }
  WEFT_ASSIGN_OR_RETURN(result.prepend, parse_scheme(section, field));
  WEFT_ASSIGN_OR_RETURN(result.split, bool_at(field, section, "split", true));
  // What older files have in place of prepend_scheme.
  WEFT_ASSIGN_OR_RETURN(const bool space, bool_at(field, section, "add_prefix_space", true));
  if (!space && result.prepend != PrependScheme::kNever) {
    return fail(wrong(field + ".add_prefix_space", false,
                      "must be true, or prepend_scheme must be never: the `tokenizers` package "
                      "takes no other"));
  }
  return result;
}

}  // namespace weft::tokenizers
