#include "worker/data/tokenizers/normal_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "worker/data/tokenizers/byte_alphabet.h"

namespace weft::tokenizers {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

// Appends what a code point is made of; gives the first of it.
utf8proc_int32_t decompose(NormalForm form, uint32_t code_point, CodePoints* out) {
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
  if (code_point >= 0x1160 && code_point <= 0x11FF) return true;
  const auto category = utf8proc_category(code_point);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME;
}

// Marks in the order of their classes. utf8proc's own sorting takes a long run's square.
void sort_marks(CodePoints* points) {
  const auto order = [](utf8proc_int32_t code_point) {
    return utf8proc_get_property(code_point)->combining_class;
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
