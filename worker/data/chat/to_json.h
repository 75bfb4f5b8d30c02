// json.dumps, as transformers' tojson calls it.
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string>

#include "worker/data/chat/value.h"

namespace weft::chat {

struct JsonStyle {
  bool ascii = false;
  bool sorted = false;
  std::optional<std::string> indent;  // a level's; none: on one line
  std::optional<std::string> between, colon;
};
// Error: what JSON has not (undefined values, functions).
std::string to_json(Run& run, const Value& value, const JsonStyle& style);

}  // namespace weft::chat
