// Normalizers that make of each character, by itself, what comes of it.
//
// Thread safety: pure functions. Texts are valid UTF-8.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "worker/data/tokenizers/byte_alphabet.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft::tokenizers {

// add(code point, out): appends what comes of it.
template <typename Add>
Normalized of_characters(std::string_view text, bool with_origin, const Add& add) {
  Normalized result;
  result.text.reserve(text.size());
  std::vector<uint32_t> points;
  int64_t point = 0;
  for (size_t at = 0, bytes = 0; at < text.size(); at += bytes, ++point) {
    points.clear();
    add(code_point_at(text.substr(at), &bytes), &points);
    for (const uint32_t each : points) result.text += utf8_of(each);
    if (!with_origin) continue;
    result.begin.insert(result.begin.end(), points.size(), point);
    result.end.insert(result.end.end(), points.size(), point + 1);
  }
  return result;
}

// One character, or two.
void add_lowercase(uint32_t code_point, std::vector<uint32_t>* out);

// The normalizers Lowercase and StripAccents, which leaves out all marks (Mn, Mc, Me) that Unicode
// 8 has: of decomposed characters the accents.
Normalized lowercased(std::string_view text, bool with_origin);
Normalized without_accents(std::string_view text, bool with_origin);

}  // namespace weft::tokenizers
