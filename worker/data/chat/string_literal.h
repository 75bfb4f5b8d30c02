// What a string of a template stands for.
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "worker/data/chat/run.h"

namespace weft::chat {

// Python's escapes; one that is none stays as it is written. Throws (run.h): an incomplete escape,
// \N, a surrogate, a backslash before a character beyond ASCII.
std::string unescaped(std::string_view written, Place place);

}  // namespace weft::chat
