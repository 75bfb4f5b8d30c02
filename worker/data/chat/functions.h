// The functions and methods that a template may call.
// Thread safety: one thread.
#pragma once

#include <string_view>

#include "worker/data/chat/arguments.h"
#include "worker/data/chat/value.h"

namespace weft::chat {

enum class Method { kNone, kSupported, kChanges, kUnsupported };
// What Python's type of `of` has under this name. kChanges: what the sandbox does not allow.
Method find_method(const Value& of, std::string_view name);

// raise_exception, namespace, range, dict; strftime_now is the environment's own.
bool is_function(std::string_view name);

// A function of the environment, or a method; not a macro.
Value call(Run& run, const FunctionData& function, Arguments arguments);

}  // namespace weft::chat
