#include "proto/json/value.h"

#include "proto/json/utf8.h"

namespace weft {

double JsonValue::as_double() const {
  switch (kind) {
    case Kind::kInteger:
      return static_cast<double>(integer);
    case Kind::kUnsigned:
      return static_cast<double>(unsigned_integer);
    case Kind::kNumber:
      return number;
    default:
      return 0;
  }
}

const JsonValue* JsonValue::find(std::string_view key) const {
  for (const JsonMember& member : members) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

std::string_view JsonValue::kind_name() const {
  switch (kind) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return "a boolean";
    case Kind::kInteger:
    case Kind::kUnsigned:
      return "an integer";
    case Kind::kNumber:
      return "a number";
    case Kind::kString:
      return "a string";
    case Kind::kArray:
      return "a list";
    case Kind::kObject:
      return "an object";
  }
  return "null";
}

std::string JsonValue::shown() const {
  switch (kind) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return boolean ? "true" : "false";
    case Kind::kArray:
      return "a list of " + std::to_string(items.size());
    case Kind::kObject:
      return "an object of " + std::to_string(members.size());
    default:
      return shortened(text);
  }
}

int LineMap::find(std::string_view path) const {
  while (true) {
    if (auto at = lines_.find(path); at != lines_.end()) return at->second;
    size_t cut = path.find_last_of(".[");
    if (cut == std::string_view::npos) return 0;
    path = path.substr(0, cut);
  }
}

std::string join_key(std::string_view path, std::string_view key) {
  std::string joined(path);
  if (!joined.empty()) joined += '.';
  joined += key;
  return joined;
}

std::string join_index(std::string_view path, size_t index) {
  return std::string(path) + '[' + std::to_string(index) + ']';
}

std::string shortened(std::string_view text, size_t bytes_max) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    size_t length = utf8_sequence_bytes(text.substr(at));
    if (result.size() + (length == 0 ? 1 : length) > bytes_max) return result + "...";
    result += length == 0 ? std::string_view("?") : text.substr(at, length);
    at += length == 0 ? 1 : length;
  }
  return result;
}

}  // namespace weft
