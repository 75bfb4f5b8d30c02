// Python's string functions on UTF-8, as chat templates call them.
//
// Thread safety: pure functions. What makes a longer text takes the Run that pays for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/data/chat/run.h"

namespace weft::chat {

std::string_view take_character(std::string_view& rest);          // off the start, not empty
std::vector<std::string_view> characters(std::string_view text);  // a code point each
int64_t character_count(std::string_view text);
bool is_ascii(std::string_view text);

enum class Side { kBoth, kLeft, kRight };
// Without white space, or without the characters of `set`, at its ends.
std::string_view stripped(std::string_view text, Side side,
                          std::optional<std::string_view> set = std::nullopt);
// split(): by white space, or by `separator` (not empty); at most `times` splits, -1: all. From the
// right: rsplit().
std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, int64_t times,
                                    bool from_right);
std::vector<std::string_view> split_lines(std::string_view text);
// At most `times` replacements, -1: all.
std::string replaced(Run& run, std::string_view text, std::string_view old, std::string_view with,
                     int64_t times);
std::string repr(std::string_view text);  // as Python writes it

// Of ASCII: letters beyond it have rules of their own, so callers refuse them.
std::string upper(std::string text);
std::string lower(std::string text);
std::string capitalized(std::string text);
std::string title_method(std::string text);  // str.title(): a word is a run of letters
std::string title_filter(std::string text);  // |title: a word starts behind a space or -({[<

// [start, stop) by `step` of a sequence of `size` items, as Python's slice.indices() has them.
struct SliceRange {
  int64_t start = 0, stop = 0, step = 1;
};
SliceRange slice_range(std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step,
                       int64_t size);

}  // namespace weft::chat
