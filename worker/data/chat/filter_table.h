// The filters by what they work on.
// Thread safety: pure functions.
#pragma once

#include <map>
#include <string_view>

#include "worker/data/chat/arguments.h"
#include "worker/data/chat/value.h"

namespace weft::chat {

using Filter = Value (*)(Run&, const Value&, Arguments&);
using FilterTable = std::map<std::string_view, Filter>;

const FilterTable& text_filters();
const FilterTable& list_filters();

}  // namespace weft::chat
