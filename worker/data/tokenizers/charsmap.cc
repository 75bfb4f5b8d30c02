#include "worker/data/tokenizers/charsmap.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "proto/json/base64.h"
#include "proto/json/utf8.h"
#include "worker/data/tokenizers/json_fields.h"

namespace weft::tokenizers {
namespace {

constexpr size_t kWholeBytesMost = 5;  // a longer user-perceived character is taken apart

uint32_t word_at(std::string_view bytes, size_t at) {
  uint32_t word = 0;
  for (size_t i = 4; i-- > 0;) word = word << 8 | static_cast<unsigned char>(bytes[at + i]);
  return word;
}

// A unit of the trie (Darts-clone).
bool is_value(uint32_t unit) { return unit >> 31 != 0; }
bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFFU; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000FFU; }
uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 0x200U) >> 6); }

// The end of the user-perceived character that begins at `at` (Unicode annex 29).
size_t cluster_end(std::string_view text, size_t at) {
  size_t bytes = 0;
  auto last = static_cast<utf8proc_int32_t>(code_point_at(text.substr(at), &bytes));
  utf8proc_int32_t state = 0;
  for (at += bytes; at < text.size(); at += bytes) {
    const auto next = static_cast<utf8proc_int32_t>(code_point_at(text.substr(at), &bytes));
    if (utf8proc_grapheme_break_stateful(last, next, &state)) break;
    last = next;
  }
  return at;
}

}  // namespace

Result<Charsmap> Charsmap::parse(const json& section, const std::string& field) {
  WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "precompiled_charsmap"}));
  WEFT_ASSIGN_OR_RETURN(const std::string text, string_at(field, section, "precompiled_charsmap"));
  const auto refuse = [&](const std::string& rule) {
    return fail(wrong(field + ".precompiled_charsmap", text, rule));
  };
  const auto bytes = base64_decode(text);
  if (!bytes) return refuse("must be Base64");
  constexpr size_t kWord = sizeof(uint32_t);
  if (bytes->size() < kWord) return refuse("must begin with the 4 bytes of its trie's size");
  const size_t size = word_at(*bytes, 0);
  if (size == 0 || size % kWord != 0) {
    return refuse("must have a trie of a multiple of 4 bytes; it says " + std::to_string(size));
  }
  if (size > bytes->size() - kWord) {
    return refuse("must have a trie of " + std::to_string(size) +
                  " bytes, as it says; it ends after " + std::to_string(bytes->size() - kWord));
  }
  Charsmap result;
  for (size_t at = kWord; at < kWord + size; at += kWord) {
    result.units_.push_back(word_at(*bytes, at));
  }
  result.texts_ = bytes->substr(kWord + size);
  if (const std::string rule = result.check(); !rule.empty()) return refuse(rule);
  return result;
}

std::string Charsmap::check() const {
  if (utf8_first_invalid(texts_) != std::string::npos) return "must have texts of valid UTF-8";
  for (size_t i = 0; i < units_.size(); ++i) {
    if (is_value(units_[i]) || !has_leaf(units_[i])) continue;
    const size_t leaf = i ^ offset_of(units_[i]);
    if (leaf >= units_.size()) return "must have each leaf of its trie in it";
    const size_t at = value_of(units_[leaf]);
    if (at >= texts_.size() || (static_cast<unsigned char>(texts_[at]) & 0xC0U) == 0x80U) {
      return "must have each replacement begin in its texts";
    }
  }
  return {};
}

bool Charsmap::find(std::string_view part, std::string_view* replacement) const {
  size_t at = offset_of(units_[0]);
  for (const char c : part) {
    const auto byte = static_cast<unsigned char>(c);
    at ^= byte;
    if (byte == 0 || at >= units_.size() || label_of(units_[at]) != byte) return false;
    const uint32_t unit = units_[at];
    at ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    const std::string_view rest = std::string_view(texts_).substr(value_of(units_[at]));
    *replacement = rest.substr(0, rest.find('\0'));
    return true;
  }
  return false;
}

void Charsmap::add(std::string_view part, std::string_view replacement, int64_t origin,
                   bool with_origin, Normalized* result) const {
  result->text += replacement;
  if (!with_origin) return;
  const int64_t last = count_code_points(part) - 1;
  const int64_t count = count_code_points(replacement);
  for (int64_t i = 0; i < count; ++i) {
    result->begin.push_back(origin + std::min(i, last));
    result->end.push_back(origin + std::min(i, last) + 1);
  }
}

Normalized Charsmap::apply(std::string_view text, bool with_origin) const {
  Normalized result;
  result.text.reserve(text.size());
  int64_t origin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = cluster_end(text, at);
    std::string_view replacement;
    if (end - at <= kWholeBytesMost && find(text.substr(at, end - at), &replacement)) {
      add(text.substr(at, end - at), replacement, origin, with_origin, &result);
      origin += count_code_points(text.substr(at, end - at));
      at = end;
      continue;
    }
    for (size_t bytes = 0; at < end; at += bytes, ++origin) {
      code_point_at(text.substr(at), &bytes);
      const std::string_view character = text.substr(at, bytes);
      add(character, find(character, &replacement) ? replacement : character, origin, with_origin,
          &result);
    }
  }
  return result;
}

}  // namespace weft::tokenizers
