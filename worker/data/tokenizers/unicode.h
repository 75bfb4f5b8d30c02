// What tokenizers need of Unicode (utf8proc). Texts are valid UTF-8.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "proto/base/status.h"

namespace weft::tokenizers {

// A word character (letters, marks, decimal digits, connectors) at the end / start of `text`.
bool ends_in_word(std::string_view text);
bool starts_with_word(std::string_view text);
// Bytes of white space at the end / start.
size_t space_at_end(std::string_view text);
size_t space_at_start(std::string_view text);

// A text with, for each of its code points, the stretch [begin, end) of code points of the original
// that it comes from. No `begin`: each from itself.
struct Normalized {
  std::string text;
  std::vector<int64_t> begin, end;
};
// Normalization Form C. `with_origin`: fills begin and end.
Result<Normalized> to_nfc(std::string_view text, bool with_origin);

// Bytes to UTF-8: each longest start of a sequence that is not completed becomes U+FFFD.
std::string to_valid_utf8(std::string_view bytes);

}  // namespace weft::tokenizers
