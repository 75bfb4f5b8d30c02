// WEFT_CHECK: our own mistakes. It stays on in release builds, prints file, line and the broken
// condition, and aborts. Nothing that comes from outside may reach one: that is a Status.
#pragma once

#include <fmt/format.h>

#include <string>

namespace weft::detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message);
}  // namespace weft::detail

// WEFT_CHECK(a == b) or WEFT_CHECK(a == b, "a {} b {}", a, b)
#define WEFT_CHECK(condition, ...)                                                                 \
  do {                                                                                             \
    if (!(condition)) [[unlikely]] {                                                               \
      ::weft::detail::check_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
    }                                                                                              \
  } while (false)
