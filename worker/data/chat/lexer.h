// A chat template's text as tokens, by Jinja's rules of white space with trim_blocks and
// lstrip_blocks, as transformers sets them.
//
// Thread safety: pure functions. Ownership: tokens own their text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "worker/data/chat/run.h"

namespace weft::chat {

inline constexpr size_t kTemplateBytesMax = size_t{1} << 20;

struct Token {
  enum class Kind {
    kData,
    kVariableBegin,
    kVariableEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  Place place;
  std::string text;  // of a string, what it stands for
  int64_t integer = 0;
  double number = 0;
};

// Ends with kEnd. Throws (run.h): not UTF-8, too long, a tag or string without its end, brackets
// that do not match, a character that starts no token.
std::vector<Token> tokens_of(std::string_view source);

}  // namespace weft::chat
