// Reads the keys of a config.json one by one, so that each is honoured or refused by name.
//
// Thread safety: one thread. Ownership: refers to the JSON value, which outlives it.
// Invariants: 1. the first error is kept and ends in status(). 2. finish() refuses every key that
// nobody asked for.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "proto/base/status.h"

namespace weft {

class ConfigReader {
 public:
  // `family` is named in errors.
  ConfigReader(const nlohmann::json& object, std::string family);

  // Of several names of one thing each that is present must say the same; none: `absent`.
  int64_t integer(std::initializer_list<const char*> names, int64_t absent, int64_t min,
                  int64_t max);
  double number(const char* name, double absent, double min, double below);
  bool flag(const char* name, bool absent);
  std::string text(const char* name, const std::string& absent);
  // null or absent: nothing.
  std::optional<int64_t> optional_integer(const char* name);
  std::optional<double> optional_number(const char* name, double min, double below);

  // Also a single integer; null or absent: empty.
  std::vector<int64_t> integers(const char* name);

  // null or absent: nothing.
  const nlohmann::json* array(const char* name);

  // null or absent: nothing. Its keys are read by a reader of its own.
  const nlohmann::json* object(const char* name);

  // Present only with this value; anything else is refused for `reason`.
  void only(const char* name, const nlohmann::json& value, const std::string& reason);
  // Whatever it says has no influence on what is computed here.
  void accept(std::initializer_list<const char*> names);
  bool has(const char* name) const { return object_.contains(name); }
  bool null(const char* name) const { return has(name) && object_.at(name).is_null(); }

  void refuse(const std::string& name, const std::string& rule);
  Status finish();

 private:
  const nlohmann::json* find(const char* name);  // marks it as asked for

  const nlohmann::json& object_;
  const std::string family_;
  std::set<std::string, std::less<>> known_;
  Status status_;
};

// The value as an error shows it: at most 80 bytes.
std::string shown(const nlohmann::json& value);

}  // namespace weft
