// Unicode's normalization forms (utf8proc).
// Thread safety: pure functions.
#pragma once

#include <string_view>

#include "worker/data/tokenizers/unicode.h"

namespace weft::tokenizers {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// Of valid UTF-8. `with_origin`: fills begin and end; where a character and its marks changed, each
// code point comes from all of them.
Normalized to_normal_form(NormalForm form, std::string_view text, bool with_origin);

}  // namespace weft::tokenizers
