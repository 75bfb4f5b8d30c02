// Upper and lower case, of ASCII only: letters beyond it have rules of their own in Python.
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "worker/data/chat/run.h"
#include "worker/data/chat/text.h"

namespace weft::chat {

inline void need_ascii(const Run& run, std::string_view text, const char* what) {
  if (!is_ascii(text)) run.refuse(std::string(what) + " of text beyond ASCII is not supported");
}

}  // namespace weft::chat
