#include "worker/data/chat/arguments.h"

#include <algorithm>

namespace weft::chat {

std::optional<Value> Arguments::take(Run& run, std::string_view name) {
  const auto found = std::ranges::find(named, name, &std::pair<std::string, Value>::first);
  if (taken_ < positional.size()) {
    if (found != named.end()) run.refuse("the argument '" + std::string(name) + "' comes twice");
    return positional[taken_++];
  }
  if (found == named.end()) return std::nullopt;
  Value value = std::move(found->second);
  named.erase(found);
  return value;
}

Value Arguments::take_or(Run& run, std::string_view name, Value otherwise) {
  std::optional<Value> found = take(run, name);
  return found ? std::move(*found) : std::move(otherwise);
}

Value Arguments::need(Run& run, std::string_view name) {
  std::optional<Value> found = take(run, name);
  if (!found) run.refuse("the argument '" + std::string(name) + "' is missing");
  return std::move(*found);
}

std::string Arguments::need_text(Run& run, std::string_view name) {
  const Value value = need(run, name);
  if (!value.is_text()) {
    run.refuse("the argument '" + std::string(name) + "' must be a str, not a " +
               value.kind_name());
  }
  return *value.text_if();
}

std::optional<int64_t> Arguments::take_integer(Run& run, std::string_view name) {
  const std::optional<Value> value = take(run, name);
  if (!value || value->is_none()) return std::nullopt;
  if (!value->is_integer() && !value->is_bool()) {
    run.refuse("the argument '" + std::string(name) + "' must be an int, not a " +
               value->kind_name());
  }
  return value->as_integer();
}

bool Arguments::take_bool(Run& run, std::string_view name, bool otherwise) {
  const std::optional<Value> value = take(run, name);
  return value ? truth(*value) : otherwise;
}

void Arguments::done(Run& run) const {
  if (taken_ < positional.size()) run.refuse("there are too many arguments");
  if (!named.empty()) run.refuse("there is no argument '" + named.front().first + "'");
}

}  // namespace weft::chat
