// Arithmetic of Python's values.
// Thread safety: pure functions.
#pragma once

#include <string>

#include "worker/data/chat/value.h"

namespace weft::chat {

// +, -, *, /, // and %. Errors: types that it does not take, an int beyond 64 bits, division by 0.
Value calculate(Run& run, const std::string& name, const Value& a, const Value& b);
Value negative(Run& run, const Value& value);
// ==, !=, <, <=, >, >=, in and not in.
bool compares(Run& run, const std::string& name, const Value& a, const Value& b);

}  // namespace weft::chat
