// Turns a parser's events into a JsonValue and enforces what JSON and YAML have in common: unique
// keys, bounded depth, valid UTF-8.
//
// Thread safety: one parse, one thread. Ownership: owns the value until take().
// Invariants: 1. After an event returned false, status() is an error and nothing more may be added.
// 2. take() is called once, after the last end().
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "proto/base/status.h"
#include "proto/json/value.h"

namespace weft {

class ValueBuilder {
 public:
  explicit ValueBuilder(int depth_max) : depth_max_(depth_max) {}

  bool start(JsonValue::Kind kind, int line);  // kArray or kObject
  bool end();
  bool key(std::string text, int line);
  bool scalar(JsonValue value);

  // Records an error about the value that would come next.
  bool refuse(std::string value, std::string rule, int line);

  // Path of the value that comes next.
  std::string path() const;
  // Whether the next scalar of the innermost object is a key; for parsers that do not tell.
  bool expects_key() const;
  int depth() const { return static_cast<int>(stack_.size()); }
  const Status& status() const { return status_; }
  JsonValue take() { return std::move(root_); }

 private:
  struct Frame {
    JsonValue value;
    bool has_key = false;
    std::string key;
    int key_line = 0;
    std::unordered_set<std::string> keys;
  };
  void add(JsonValue value);

  int depth_max_;
  std::vector<Frame> stack_;
  JsonValue root_;
  Status status_;
};

}  // namespace weft
