// What stands behind a dot and within brackets, as Jinja's sandbox looks it up.
// Thread safety: one thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "worker/data/chat/value.h"

namespace weft::chat {

// `of.name`: a method, else an item. Undefined where there is none. Errors: `of` is undefined, a
// method that is not supported.
Value attribute_of(Run& run, const Value& of, const std::string& name);
// `of[key]`: an item, else an attribute.
Value item_of(Run& run, const Value& of, const Value& key);
Value slice_of(Run& run, const Value& of, std::optional<int64_t> start, std::optional<int64_t> stop,
               std::optional<int64_t> step);
// The items' attribute "a.b.0", as filters take it.
Value path_of(Run& run, const Value& of, const Value& path);

}  // namespace weft::chat
