// Jinja's tests: what may stand behind `is`.
// Thread safety: one thread.
#pragma once

#include <string_view>

#include "worker/data/chat/arguments.h"
#include "worker/data/chat/value.h"

namespace weft::chat {

bool is_test(std::string_view name);
bool passes(Run& run, std::string_view name, const Value& value, Arguments arguments);

}  // namespace weft::chat
