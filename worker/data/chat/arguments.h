// The arguments of a call, taken in the order of the parameters.
// Thread safety: one thread. Ownership: a value.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "worker/data/chat/value.h"

namespace weft::chat {

class Arguments {
 public:
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The next by position, else the one of this name.
  std::optional<Value> take(Run& run, std::string_view name);
  Value take_or(Run& run, std::string_view name, Value otherwise);
  // Error: absent.
  Value need(Run& run, std::string_view name);
  // Errors: absent, of another type.
  std::string need_text(Run& run, std::string_view name);
  std::optional<int64_t> take_integer(Run& run, std::string_view name);  // None is absent
  bool take_bool(Run& run, std::string_view name, bool otherwise);
  // Error: arguments are left that nobody took.
  void done(Run& run) const;

 private:
  size_t taken_ = 0;
};

}  // namespace weft::chat
