#include "worker/data/tokenizers/normal_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <vector>

#include "worker/data/tokenizers/byte_alphabet.h"

namespace weft::tokenizers {
namespace {

struct FormRange {
  uint32_t first, last;
};

// What later versions of Unicode than that of the `tokenizers` package decompose, compose or order:
// there such a character stays as and where it is.
constexpr std::array<FormRange, 47> kLaterForms{
    {{0x07fd, 0x07fd},   {0x0898, 0x089f},   {0x08ca, 0x08d3},   {0x09fe, 0x09fe},
     {0x0c3c, 0x0c3c},   {0x0d3b, 0x0d3c},   {0x0eba, 0x0eba},   {0x1715, 0x1715},
     {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},
     {0xa82c, 0xa82c},   {0xab69, 0xab69},   {0x10781, 0x10785}, {0x10787, 0x107b0},
     {0x107b2, 0x107ba}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff},
     {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b},
     {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11938, 0x11938},
     {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
     {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
     {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e030, 0x1e06d},
     {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef},
     {0x1e4ec, 0x1e4ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9}}};

bool is_later_form(uint32_t code_point) {
  const auto next = std::ranges::upper_bound(kLaterForms, code_point, {}, &FormRange::first);
  return next != kLaterForms.begin() && code_point <= std::prev(next)->last;
}

using CodePoints = std::vector<utf8proc_int32_t>;

// Appends what a code point is made of; gives the first of it.
utf8proc_int32_t decompose(NormalForm form, uint32_t code_point, CodePoints* out) {
  if (is_later_form(code_point)) {
    out->push_back(static_cast<utf8proc_int32_t>(code_point));
    return out->back();
  }
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  std::array<utf8proc_int32_t, 32> parts{};  // U+FDFA is made of 18
  int boundary = 0;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatible ? UTF8PROC_COMPAT : 0));
  const auto count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), parts.data(),
                              static_cast<utf8proc_ssize_t>(parts.size()), options, &boundary);
  out->insert(out->end(), parts.begin(), parts.begin() + count);
  return parts[0];
}

// It is put in another order than what stands before it, or may be made one with that: a mark, or a
// vowel or final consonant of Hangul.
bool is_tied(utf8proc_int32_t code_point) {
  if (is_later_form(static_cast<uint32_t>(code_point))) return false;
  if (code_point >= 0x1160 && code_point <= 0x11FF) return true;
  const auto category = utf8proc_category(code_point);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME;
}

// Marks in the order of their classes. utf8proc's own sorting takes a long run's square.
void sort_marks(CodePoints* points) {
  const auto order = [](utf8proc_int32_t code_point) {
    return is_later_form(static_cast<uint32_t>(code_point))
               ? 0
               : utf8proc_get_property(code_point)->combining_class;
  };
  const auto starts = [&](utf8proc_int32_t code_point) { return order(code_point) == 0; };
  for (auto begin = points->begin(); begin != points->end();) {
    const auto end = std::find_if(begin, points->end(), starts);
    std::stable_sort(begin, end, [&](auto a, auto b) { return order(a) < order(b); });
    begin = std::find_if_not(end, points->end(), starts);
  }
}

void compose(CodePoints* points) {
  const auto count =
      utf8proc_normalize_utf32(points->data(), static_cast<utf8proc_ssize_t>(points->size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  points->resize(static_cast<size_t>(count));
}

// A character and what is tied to it.
struct Cluster {
  int64_t origin = 0, length = 0;  // of the text, in code points
  std::string_view text;
};

void add_cluster(const Cluster& cluster, const CodePoints& points, bool with_origin,
                 Normalized* result) {
  const size_t before = result->text.size();
  for (const auto point : points) result->text += utf8_of(static_cast<uint32_t>(point));
  if (!with_origin) return;
  const bool same = std::string_view(result->text).substr(before) == cluster.text;
  for (int64_t i = 0; i < static_cast<int64_t>(points.size()); ++i) {
    result->begin.push_back(cluster.origin + (same ? i : 0));
    result->end.push_back(cluster.origin + (same ? i + 1 : cluster.length));
  }
}

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

// ASCII characters from `at` on that no mark stands behind.
size_t plain_bytes(std::string_view text, size_t at) {
  const auto end = std::find_if_not(text.begin() + static_cast<int64_t>(at), text.end(), is_ascii);
  const auto bytes = static_cast<size_t>(end - text.begin()) - at;
  return end == text.end() || bytes == 0 ? bytes : bytes - 1;
}

}  // namespace

Normalized to_normal_form(NormalForm form, std::string_view text, bool with_origin) {
  const bool composes = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  Normalized result;
  result.text.reserve(text.size());
  CodePoints points, next;
  int64_t origin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t plain = plain_bytes(text, at);
    result.text += text.substr(at, plain);
    at += plain;
    for (size_t i = 0; with_origin && i < plain; ++i) {
      result.begin.push_back(origin + static_cast<int64_t>(i));
      result.end.push_back(origin + static_cast<int64_t>(i) + 1);
    }
    origin += static_cast<int64_t>(plain);
    if (at == text.size()) break;
    points.clear();
    int64_t length = 0;
    size_t end = at;
    for (size_t bytes = 0; end < text.size(); end += bytes, ++length) {
      next.clear();
      const auto first = decompose(form, code_point_at(text.substr(end), &bytes), &next);
      if (length > 0 && !is_tied(first)) break;
      points.insert(points.end(), next.begin(), next.end());
    }
    sort_marks(&points);
    if (composes) compose(&points);
    add_cluster({origin, length, text.substr(at, end - at)}, points, with_origin, &result);
    origin += length;
    at = end;
  }
  return result;
}

}  // namespace weft::tokenizers
