// JsonValue: one parsed JSON or YAML value that remembers its lines. Both readers make it, and
// everything that reads a document (messages, job files, patches) works on it, so the two formats
// have the same rules.
//
// Thread safety: values. Ownership: a value owns what is below it.
// Invariants: 1. The keys of an object are unique and in the order of the text. 2. Numbers are
// finite.
// 3. Strings are valid UTF-8. 4. `kUnsigned` holds only what int64 cannot.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace weft {

struct JsonMember;

struct JsonValue {
  enum class Kind { kNull, kBool, kInteger, kUnsigned, kNumber, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  bool boolean = false;
  int line = 0;  // 1-based, where the value starts; 0: not from a document
  int64_t integer = 0;
  uint64_t unsigned_integer = 0;
  double number = 0;
  std::string text;  // a string's content, or a number as it was written
  std::vector<JsonValue> items;
  std::vector<JsonMember> members;

  bool is_null() const { return kind == Kind::kNull; }
  bool is_string() const { return kind == Kind::kString; }
  bool is_array() const { return kind == Kind::kArray; }
  bool is_object() const { return kind == Kind::kObject; }
  bool is_number() const {
    return kind == Kind::kInteger || kind == Kind::kUnsigned || kind == Kind::kNumber;
  }
  // Any number as a double; 0 for what is none.
  double as_double() const;
  // The member with this key, or null.
  const JsonValue* find(std::string_view key) const;
  // "a string", "an integer", "a list", ...
  std::string_view kind_name() const;
  // The value as an error message shows it: at most 100 bytes.
  std::string shown() const;
};

struct JsonMember {
  std::string key;
  int line = 0;  // of the key
  JsonValue value;
};

// Which line each field of a document stands on.
class LineMap {
 public:
  void set(std::string_view path, int line) { lines_[std::string(path)] = line; }
  // The line of `path`, or of the nearest enclosing field that was written; 0: none.
  int find(std::string_view path) const;
  void clear() { lines_.clear(); }

 private:
  std::map<std::string, int, std::less<>> lines_;
};

// "training" + "steps" = "training.steps"; "tasks" + 1 = "tasks[1]".
std::string join_key(std::string_view path, std::string_view key);
std::string join_index(std::string_view path, size_t index);

// At most the first `bytes_max` bytes of `text`, cut at a character's border and then with "...";
// bytes that are not UTF-8 as "?". For error messages.
std::string shortened(std::string_view text, size_t bytes_max = 100);

}  // namespace weft
