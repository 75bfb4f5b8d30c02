#include "worker/data/tokenizers/characters.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

namespace weft::tokenizers {
namespace {

struct Stretch {
  uint32_t first, last;
};

// Where all marks came after Unicode 8.
constexpr std::array<Stretch, 34> kNewMarks{
    {{0x07fd, 0x07fd},   {0x0898, 0x08d3},   {0x09fe, 0x09fe},   {0x0afa, 0x0aff},
     {0x0b55, 0x0b55},   {0x0c04, 0x0c3c},   {0x0cf3, 0x0d00},   {0x0d3b, 0x0d3c},
     {0x0d81, 0x0d81},   {0x0eba, 0x0eba},   {0x0ece, 0x0ece},   {0x1715, 0x1715},
     {0x180f, 0x180f},   {0x1abf, 0x1ace},   {0x1cf7, 0x1cf7},   {0x1df6, 0x1dfa},
     {0xa82c, 0xa82c},   {0xa8ff, 0xa8ff},   {0x10d24, 0x10f85}, {0x11070, 0x11074},
     {0x110c2, 0x110c2}, {0x11145, 0x11146}, {0x111c9, 0x111c9}, {0x111ce, 0x111cf},
     {0x11241, 0x11241}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x1182c, 0x11a99},
     {0x11d31, 0x13455}, {0x16f4f, 0x16f4f}, {0x16f7f, 0x16f87}, {0x16fe4, 0x16ff1},
     {0x1cf00, 0x1cf46}, {0x1e08f, 0x1e4ef}}};

struct Capitals {
  uint32_t first, last, lowercase;  // of the first
};

// Of Unicode 16 and 17, which utf8proc may not know yet.
constexpr std::array<Capitals, 10> kNewCapitals{{{0x1c89, 0x1c89, 0x1c8a},
                                                 {0xa7cb, 0xa7cb, 0x0264},
                                                 {0xa7cc, 0xa7cc, 0xa7cd},
                                                 {0xa7ce, 0xa7ce, 0xa7cf},
                                                 {0xa7d2, 0xa7d2, 0xa7d3},
                                                 {0xa7d4, 0xa7d4, 0xa7d5},
                                                 {0xa7da, 0xa7da, 0xa7db},
                                                 {0xa7dc, 0xa7dc, 0x019b},
                                                 {0x10d50, 0x10d65, 0x10d70},
                                                 {0x16ea0, 0x16eb8, 0x16ebb}}};

bool is_accent(uint32_t code_point) {
  if (code_point == 0x1cf2 || code_point == 0x1cf3) return true;  // letters since Unicode 12
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
  if (category < UTF8PROC_CATEGORY_MN || category > UTF8PROC_CATEGORY_ME) return false;
  return std::ranges::none_of(kNewMarks, [&](const Stretch& stretch) {
    return code_point >= stretch.first && code_point <= stretch.last;
  });
}

}  // namespace

// U+0130 is the one character whose lowercase is two.
void add_lowercase(uint32_t code_point, std::vector<uint32_t>* out) {
  if (code_point == 0x130) {
    out->insert(out->end(), {'i', 0x307});
    return;
  }
  for (const Capitals& some : kNewCapitals) {
    if (code_point < some.first || code_point > some.last) continue;
    out->push_back(some.lowercase + (code_point - some.first));
    return;
  }
  out->push_back(
      static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point))));
}

Normalized lowercased(std::string_view text, bool with_origin) {
  return of_characters(text, with_origin, add_lowercase);
}

Normalized without_accents(std::string_view text, bool with_origin) {
  return of_characters(text, with_origin, [](uint32_t code_point, std::vector<uint32_t>* out) {
    if (!is_accent(code_point)) out->push_back(code_point);
  });
}

}  // namespace weft::tokenizers
