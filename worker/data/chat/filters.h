// Jinja's filters, as far as chat templates use them.
// Thread safety: one thread.
#pragma once

#include <string_view>

#include "worker/data/chat/arguments.h"
#include "worker/data/chat/value.h"

namespace weft::chat {

bool is_filter(std::string_view name);
Value filtered(Run& run, std::string_view name, const Value& value, Arguments arguments);

}  // namespace weft::chat
