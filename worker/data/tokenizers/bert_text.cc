#include "worker/data/tokenizers/bert_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "worker/data/tokenizers/characters.h"
#include "worker/data/tokenizers/json_fields.h"

namespace weft::tokenizers {
namespace {

struct Range {
  uint32_t first, last;
};

// Where marks, signs and format characters came with Unicode 9 to 14, or are no longer such.
constexpr std::array<Range, 40> kLater{
    {{0x061d, 0x061d},   {0x07fd, 0x07fd},   {0x0890, 0x08e2},   {0x09fd, 0x09fe},
     {0x0a76, 0x0a76},   {0x0afa, 0x0aff},   {0x0b55, 0x0b55},   {0x0c04, 0x0c3c},
     {0x0c77, 0x0c77},   {0x0c84, 0x0c84},   {0x0d00, 0x0d00},   {0x0d3b, 0x0d3c},
     {0x0d81, 0x0d81},   {0x0eba, 0x0eba},   {0x180f, 0x1886},   {0x1abf, 0x1ace},
     {0x1b7d, 0x1b7e},   {0x1df6, 0x1dfb},   {0x2e43, 0x2e5d},   {0xa82c, 0xa82c},
     {0xa8c5, 0xa8c5},   {0xa8ff, 0xa8ff},   {0xa9bd, 0xa9bd},   {0x10d24, 0x10f89},
     {0x11070, 0x11074}, {0x110c2, 0x110cd}, {0x111c9, 0x111c9}, {0x111cf, 0x111cf},
     {0x1123e, 0x1123e}, {0x1133b, 0x1133b}, {0x11438, 0x1145e}, {0x11660, 0x1166c},
     {0x116b9, 0x116b9}, {0x1182f, 0x11fff}, {0x12ff1, 0x13438}, {0x16e97, 0x16f4f},
     {0x16fe2, 0x16fe4}, {0x1cf00, 0x1cf46}, {0x1e000, 0x1e2ef}, {0x1e944, 0x1e95f}}};
// Which were signs, and a mark, in Unicode 8.
constexpr std::array<uint32_t, 2> kOnceSigns{0x166d, 0x111c9};
constexpr uint32_t kOnceMark = 0x1734;

// What handle_chinese_chars goes for.
constexpr std::array<Range, 7> kChinese{{{0x3400, 0x4dbf},
                                         {0x4e00, 0x9fff},
                                         {0xf900, 0xfaff},
                                         {0x20000, 0x2a6df},
                                         {0x2a700, 0x2b81f},
                                         {0x2b920, 0x2ceaf},
                                         {0x2f800, 0x2fa1f}}};

template <size_t kCount>
bool among(const std::array<Range, kCount>& ranges, uint32_t code_point) {
  return std::ranges::any_of(ranges, [&](const Range& range) {
    return code_point >= range.first && code_point <= range.last;
  });
}

utf8proc_category_t category_of(uint32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

bool is_mark(uint32_t code_point) {
  return code_point == kOnceMark ||
         (category_of(code_point) == UTF8PROC_CATEGORY_MN && !among(kLater, code_point));
}

bool is_cleaned(uint32_t code_point) {
  if (code_point == 0 || code_point == 0xfffd) return true;
  if (code_point == '\t' || code_point == '\n' || code_point == '\r') return false;
  const auto category = category_of(code_point);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CO ||
         (category == UTF8PROC_CATEGORY_CF && !among(kLater, code_point));
}

// Canonically decomposed, without marks.
void strip_marks(uint32_t code_point, std::vector<uint32_t>* out) {
  std::array<utf8proc_int32_t, 16> parts{};
  int boundary = 0;
  const auto count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), parts.data(),
                              static_cast<utf8proc_ssize_t>(parts.size()),
                              static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE), &boundary);
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    const auto part = static_cast<uint32_t>(parts[static_cast<size_t>(i)]);
    if (!is_mark(part)) out->push_back(part);
  }
}

// What becomes of one character.
void add_character(const BertNormalizer& how, uint32_t code_point, std::vector<uint32_t>* out) {
  if (how.clean_text) {
    if (is_cleaned(code_point)) return;
    if (is_bert_space(code_point)) code_point = ' ';
  }
  const bool alone = how.handle_chinese_chars && among(kChinese, code_point);
  if (alone) out->push_back(' ');
  std::vector<uint32_t> parts;
  if (how.strip_accents) {
    strip_marks(code_point, &parts);
  } else {
    parts.push_back(code_point);
  }
  for (const uint32_t part : parts) {
    if (how.lowercase) {
      add_lowercase(part, out);
    } else {
      out->push_back(part);
    }
  }
  if (alone) out->push_back(' ');
}

}  // namespace

bool is_bert_space(uint32_t code_point) {
  if (code_point >= 9 && code_point <= 13) return true;
  const auto category = category_of(code_point);
  return code_point == 0x85 || category == UTF8PROC_CATEGORY_ZS ||
         category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

bool is_bert_punctuation(uint32_t code_point) {
  if (code_point < 0x80) {
    const auto c = static_cast<char>(code_point);
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
  }
  if (std::ranges::find(kOnceSigns, code_point) != kOnceSigns.end()) return true;
  const auto category = category_of(code_point);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO &&
         !among(kLater, code_point);
}

Normalized BertNormalizer::apply(std::string_view text, bool with_origin) const {
  return of_characters(text, with_origin, [&](uint32_t code_point, std::vector<uint32_t>* out) {
    add_character(*this, code_point, out);
  });
}

Result<BertNormalizer> parse_bert_normalizer(const json& section, const std::string& field) {
  WEFT_RETURN_IF_ERROR(
      check_object(field, section,
                   {"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"}));
  BertNormalizer how;
  WEFT_ASSIGN_OR_RETURN(how.clean_text, bool_at(field, section, "clean_text", true));
  WEFT_ASSIGN_OR_RETURN(how.handle_chinese_chars,
                        bool_at(field, section, "handle_chinese_chars", true));
  WEFT_ASSIGN_OR_RETURN(how.lowercase, bool_at(field, section, "lowercase", true));
  WEFT_ASSIGN_OR_RETURN(how.strip_accents, bool_at(field, section, "strip_accents", how.lowercase));
  return how;
}

}  // namespace weft::tokenizers
