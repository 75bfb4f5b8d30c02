// Metaspace, SentencePiece's way of writing spaces (Kudo and Richardson 2018): a visible character
// stands for each space, and one may be put in front of a text that has none there. Pre-tokenizer
// and decoder share its fields.
// Thread safety: values.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "proto/base/status.h"

namespace weft::tokenizers {

enum class PrependScheme {
  kAlways,  // in front of each stretch between added tokens
  kFirst,   // in front of the stretch that the text begins with
  kNever
};

struct Metaspace {
  std::string replacement;  // UTF-8 of one character
  PrependScheme prepend = PrependScheme::kAlways;
  bool split = true;  // words begin at each replacement
};

// Errors name the field.
Result<Metaspace> parse_metaspace(const nlohmann::json& section, const std::string& field);

// The characters of `text` (valid UTF-8) are one, and no more.
bool is_one_character(const std::string& text);

}  // namespace weft::tokenizers
