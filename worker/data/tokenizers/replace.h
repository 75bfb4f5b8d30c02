// Replace, a component of normalizers and decoders: a string in place of another, or of what a
// pattern matches.
// Thread safety: values.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "worker/data/tokenizers/regex.h"

namespace weft::tokenizers {

struct Replace {
  std::string pattern, content;        // the pattern is not empty
  std::shared_ptr<const Regex> regex;  // the pattern compiled; null: it stands for itself
};

// Errors name the field.
Result<Replace> parse_replace(const nlohmann::json& section, const std::string& field);
// Each occurrence of the pattern, leftmost first, replaced by the content.
std::string replaced(std::string_view text, std::string_view pattern, std::string_view content);

}  // namespace weft::tokenizers
