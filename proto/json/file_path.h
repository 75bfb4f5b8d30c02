// The path of a file inside an uploaded object. The command line asks before it uploads, the
// coordinator before it stores, an agent before it writes the file.
//
// Thread safety: pure functions. Ownership: none.
#pragma once

#include <string>
#include <string_view>

#include "proto/base/status.h"

namespace weft {

// Relative, at most 1024 bytes of valid UTF-8, parts of 1 to 255 bytes that are neither "." nor
// "..", no backslash, no control character. Errors have the field `path`.
Status check_file_path(std::string_view path);

// Control characters, backslashes and bytes that are not UTF-8 as \n, \\, \x07: at most 200 bytes.
std::string escaped(std::string_view text);

}  // namespace weft
