// What tokenizers need of Unicode (utf8proc). Texts are valid UTF-8.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

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

// First byte of the last code point of `text`, which is not empty.
size_t last_start(std::string_view text);
int64_t count_code_points(std::string_view text);
// The code point at the start of `text`, which is not empty, and how many bytes it has.
uint32_t code_point_at(std::string_view text, size_t* bytes);
// That code point as text: U+0041.
std::string code_point_name(std::string_view text);
// What Python writes in a repr() as it is: no separator but the space, no control, no format, none
// that is not assigned.
bool is_printable(uint32_t code_point);

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD, for what is no UTF-8
// Bytes to UTF-8: each longest start of a sequence that is not completed becomes U+FFFD.
std::string to_valid_utf8(std::string_view bytes);
// Bytes of `text`, perhaps made so, up to the last character that bytes behind it cannot change.
size_t settled_bytes(std::string_view text);

}  // namespace weft::tokenizers
