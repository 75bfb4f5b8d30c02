// Full match of a short text against the patterns that stand in the schema's rules.
//
// The language is a small part of RE2's: literal characters, `.`, classes `[A-Za-z_-]` and `[^/]`,
// escapes `\.`, the quantifiers `*`, `+`, `?`, `{n}`, `{m,n}`, `{m,}` on one character or class,
// and alternatives `a|b` of the whole. Bytes, not code points.
//
// Thread safety: pure functions.
// Invariant: time is at most pattern atoms x text bytes x quantifier's width; nothing backtracks.
#pragma once

#include <string_view>

namespace weft {

// Whether the pattern is written in the language above. Rules that break it are our mistake.
bool is_pattern(std::string_view pattern);
bool matches_pattern(std::string_view text, std::string_view pattern);

}  // namespace weft
