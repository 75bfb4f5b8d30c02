// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <string_view>

namespace weft {

// Bytes of the valid sequence at the start of `text`; 0: there is none (or `text` is empty).
size_t utf8_sequence_bytes(std::string_view text);

// Offset of the first byte that is not part of valid UTF-8; npos: all is valid.
size_t utf8_first_invalid(std::string_view text);

}  // namespace weft
