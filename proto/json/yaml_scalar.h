// The core schema of YAML 1.2 (section 10.3.2): what a plain scalar means.
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "proto/json/value.h"

namespace weft {

// Where the scalar is refused (.nan, .inf, an integer beyond 64 bits), `wrong` says why.
JsonValue resolve_plain_scalar(std::string_view text, std::string* wrong);
JsonValue string_value(std::string_view text);

}  // namespace weft
