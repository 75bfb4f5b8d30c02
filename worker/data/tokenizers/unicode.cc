#include "worker/data/tokenizers/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "proto/json/utf8.h"

namespace weft::tokenizers {
namespace {

utf8proc_int32_t first_of(std::string_view text, size_t* bytes) {
  utf8proc_int32_t code_point = -1;
  const auto got = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                    static_cast<utf8proc_ssize_t>(text.size()), &code_point);
  *bytes = got > 0 ? static_cast<size_t>(got) : 1;
  return code_point;
}

bool is_word(utf8proc_int32_t code_point) {
  if (code_point < 0) return false;
  if (code_point == 0x200C || code_point == 0x200D) return true;  // joiners
  if (code_point >= 0x24B6 && code_point <= 0x24E9) return true;  // circled letters: alphabetic
  switch (utf8proc_category(code_point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool is_space(utf8proc_int32_t code_point) {
  if (code_point >= 9 && code_point <= 13) return true;
  if (code_point == 0x85) return true;
  if (code_point < 0) return false;
  const auto category = utf8proc_category(code_point);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

}  // namespace

size_t last_start(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
  return at;
}

bool ends_in_word(std::string_view text) {
  if (text.empty()) return false;
  size_t bytes = 0;
  return is_word(first_of(text.substr(last_start(text)), &bytes));
}

bool starts_with_word(std::string_view text) {
  size_t bytes = 0;
  return !text.empty() && is_word(first_of(text, &bytes));
}

size_t space_at_end(std::string_view text) {
  size_t kept = text.size(), bytes = 0;
  while (kept > 0) {
    const size_t at = last_start(text.substr(0, kept));
    if (!is_space(first_of(text.substr(at, kept - at), &bytes))) break;
    kept = at;
  }
  return text.size() - kept;
}

size_t space_at_start(std::string_view text) {
  size_t at = 0, bytes = 0;
  while (at < text.size() && is_space(first_of(text.substr(at), &bytes))) at += bytes;
  return at;
}

int64_t count_code_points(std::string_view text) {
  int64_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0U) != 0x80U ? 1 : 0;
  return count;
}

uint32_t code_point_at(std::string_view text, size_t* bytes) {
  const auto lead = static_cast<unsigned char>(text[0]);
  *bytes = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  uint32_t code_point = *bytes == 1 ? lead : lead & (0x7FU >> *bytes);
  for (size_t i = 1; i < *bytes; ++i) {
    code_point = code_point << 6 | (static_cast<unsigned char>(text[i]) & 0x3FU);
  }
  return code_point;
}

std::string code_point_name(std::string_view text) {
  size_t bytes = 0;
  std::array<char, 16> name = {};
  std::snprintf(name.data(), name.size(), "U+%04X", code_point_at(text, &bytes));
  return name.data();
}

bool is_printable(uint32_t code_point) {
  if (code_point == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
      return false;
    default:
      return true;
  }
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    size_t valid = utf8_first_invalid(bytes);
    if (valid == std::string_view::npos) valid = bytes.size();
    text += bytes.substr(0, valid);
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    text += kReplacement;
    // The longest start of a valid sequence counts as one (Unicode 15, section 3.9, table 3-8).
    const auto lead = static_cast<unsigned char>(bytes[0]);
    const size_t whole = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 1;
    size_t drop = 1;
    for (size_t length = 2; length < whole && length <= bytes.size(); ++length) {
      std::string completed(bytes.substr(0, length));
      const bool second = length == 2;
      completed.append(whole - length, '\x80');
      if (second && utf8_sequence_bytes(completed) != whole) break;
      if ((static_cast<unsigned char>(bytes[length - 1]) & 0xC0U) != 0x80U) break;
      drop = length;
    }
    bytes.remove_prefix(drop);
  }
  return text;
}

size_t settled_bytes(std::string_view text) {
  if (text.ends_with(kReplacement)) return text.size() - kReplacement.size();
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0U) == 0x80U) continue;  // a continuation: look for its lead
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? text.size() - back : text.size();
  }
  return text.size();
}

}  // namespace weft::tokenizers
