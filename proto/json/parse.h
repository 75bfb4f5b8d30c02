// The one JSON parser of the project, strict RFC 8259.
//
// Refused, each with its line and, where known, its field: duplicate keys, NaN and Infinity,
// numbers beyond double, integers beyond int64 and uint64 (never rounded to a double in silence),
// invalid UTF-8, lone surrogates, trailing text, more than `depth_max` levels, more than
// `bytes_max` bytes. A byte order mark at the very start is skipped.
//
// Thread safety: pure functions. Ownership: the result owns its content.
#pragma once

#include <cstddef>
#include <string_view>

#include "proto/base/status.h"
#include "proto/json/json_fwd.h"

namespace weft {

struct JsonValue;

struct ParseLimits {
  size_t bytes_max = size_t{64} << 20;
  int depth_max = 64;
  // Integers beyond 64 bits become doubles, for foreign files that hold such a number by custom:
  // transformers writes 10^30 for "no limit".
  bool wide_integers = false;
};

// For readers of foreign files (config.json, tokenizer.json, JSONL lines); include
// <nlohmann/json.hpp> to use the result.
Result<nlohmann::json> parse_strict(std::string_view text, const ParseLimits& limits = {});

// The same with lines and the order of keys kept, without nlohmann's types.
Result<JsonValue> parse_json(std::string_view text, const ParseLimits& limits = {});

}  // namespace weft
