#include "proto/json/builder.h"

#include "proto/json/utf8.h"

namespace weft {

bool ValueBuilder::start(JsonValue::Kind kind, int line) {
  if (depth() >= depth_max_) {
    return refuse("", "is nested more than " + std::to_string(depth_max_) + " levels deep", line);
  }
  Frame frame;
  frame.value.kind = kind;
  frame.value.line = line;
  stack_.push_back(std::move(frame));
  return true;
}

bool ValueBuilder::end() {
  JsonValue value = std::move(stack_.back().value);
  stack_.pop_back();
  add(std::move(value));
  return true;
}

bool ValueBuilder::key(std::string text, int line) {
  Frame& frame = stack_.back();
  frame.key = std::move(text);
  frame.key_line = line;
  frame.has_key = true;
  if (utf8_first_invalid(frame.key) != std::string_view::npos) {
    frame.key = "?";
    return refuse("", "has a key that is not valid UTF-8", line);
  }
  if (!frame.keys.insert(frame.key).second) {
    return refuse("", "is written twice; keep one of the two", line);
  }
  return true;
}

bool ValueBuilder::scalar(JsonValue value) {
  if (value.is_string() && utf8_first_invalid(value.text) != std::string_view::npos) {
    return refuse("", "is not valid UTF-8", value.line);
  }
  add(std::move(value));
  return true;
}

bool ValueBuilder::refuse(std::string value, std::string rule, int line) {
  std::string where = path();
  status_ = Status::invalid(where.empty() ? "document" : where, std::move(value), std::move(rule));
  status_.with_line(line);
  return false;
}

std::string ValueBuilder::path() const {
  std::string path;
  for (const Frame& frame : stack_) {
    if (frame.value.is_array()) {
      path = join_index(path, frame.value.items.size());
    } else if (frame.has_key) {
      path = join_key(path, frame.key);
    }
  }
  return path;
}

bool ValueBuilder::expects_key() const {
  return !stack_.empty() && stack_.back().value.is_object() && !stack_.back().has_key;
}

void ValueBuilder::add(JsonValue value) {
  if (stack_.empty()) {
    root_ = std::move(value);
    return;
  }
  Frame& frame = stack_.back();
  if (frame.value.is_array()) {
    frame.value.items.push_back(std::move(value));
  } else {
    frame.value.members.push_back({std::move(frame.key), frame.key_line, std::move(value)});
    frame.has_key = false;
    frame.key.clear();
  }
}

}  // namespace weft
