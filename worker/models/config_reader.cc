#include "worker/models/config_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace weft {
namespace {

bool fits_integer(const nlohmann::json& value) {
  return value.is_number_integer() &&
         (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX);
}

}  // namespace

std::string shown(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

ConfigReader::ConfigReader(const nlohmann::json& object, std::string family)
    : object_(object), family_(std::move(family)) {
  if (!object_.is_object()) {
    status_ = Status::invalid("config", shown(object_), "must be an object with the model's keys");
  }
}

const nlohmann::json* ConfigReader::find(const char* name) {
  known_.insert(name);
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(name);
  return found == object_.end() ? nullptr : &*found;
}

void ConfigReader::refuse(const std::string& name, const std::string& rule) {
  if (!status_.ok()) return;
  const auto found = object_.find(name);
  status_ = Status::invalid(name, found == object_.end() ? "absent" : shown(*found), rule);
}

int64_t ConfigReader::integer(std::initializer_list<const char*> names, int64_t absent, int64_t min,
                              int64_t max) {
  std::optional<int64_t> value;
  const char* first = nullptr;
  for (const char* name : names) {
    const nlohmann::json* found = find(name);
    if (found == nullptr) continue;
    if (!fits_integer(*found) || found->get<int64_t>() < min || found->get<int64_t>() > max) {
      refuse(name, fmt::format("must be an integer from {} to {}", min, max));
      return absent;
    }
    if (value && *value != found->get<int64_t>()) {
      refuse(name, fmt::format("must be the same as {}, which says {}", first, *value));
    }
    if (!value) first = name;
    value = found->get<int64_t>();
  }
  return value.value_or(absent);
}

double ConfigReader::number(const char* name, double absent, double min, double below) {
  const nlohmann::json* found = find(name);
  if (found == nullptr) return absent;
  if (!found->is_number() || found->get<double>() < min || !(found->get<double>() < below)) {
    refuse(name, fmt::format("must be a number of at least {} and below {}", min, below));
    return absent;
  }
  return found->get<double>();
}

bool ConfigReader::flag(const char* name, bool absent) {
  const nlohmann::json* found = find(name);
  if (found == nullptr) return absent;
  if (!found->is_boolean()) {
    refuse(name, "must be true or false");
    return absent;
  }
  return found->get<bool>();
}

std::string ConfigReader::text(const char* name, const std::string& absent) {
  const nlohmann::json* found = find(name);
  if (found == nullptr) return absent;
  if (!found->is_string()) {
    refuse(name, "must be a string");
    return absent;
  }
  return found->get<std::string>();
}

std::optional<int64_t> ConfigReader::optional_integer(const char* name) {
  const nlohmann::json* found = find(name);
  if (found == nullptr || found->is_null()) return std::nullopt;
  if (!fits_integer(*found)) {
    refuse(name, "must be an integer or null");
    return std::nullopt;
  }
  return found->get<int64_t>();
}

std::optional<double> ConfigReader::optional_number(const char* name, double min, double below) {
  const nlohmann::json* found = find(name);
  if (found == nullptr || found->is_null()) return std::nullopt;
  return number(name, min, min, below);
}

std::vector<int64_t> ConfigReader::integers(const char* name) {
  const nlohmann::json* found = find(name);
  if (found == nullptr || found->is_null()) return {};
  if (fits_integer(*found)) return {found->get<int64_t>()};
  if (!found->is_array() || !std::ranges::all_of(*found, fits_integer)) {
    refuse(name, "must be an integer, a list of integers or null");
    return {};
  }
  return found->get<std::vector<int64_t>>();
}

const nlohmann::json* ConfigReader::array(const char* name) {
  const nlohmann::json* found = find(name);
  if (found == nullptr || found->is_null()) return nullptr;
  if (found->is_array()) return found;
  refuse(name, "must be a list or null");
  return nullptr;
}

const nlohmann::json* ConfigReader::object(const char* name) {
  const nlohmann::json* found = find(name);
  if (found == nullptr || found->is_null()) return nullptr;
  if (found->is_object()) return found;
  refuse(name, "must be an object or null");
  return nullptr;
}

void ConfigReader::only(const char* name, const nlohmann::json& value, const std::string& reason) {
  const nlohmann::json* found = find(name);
  if (found == nullptr || *found == value || found->is_null()) return;
  refuse(name, fmt::format("only {} is possible: {}", shown(value), reason));
}

void ConfigReader::accept(std::initializer_list<const char*> names) {
  for (const char* name : names) known_.insert(name);
}

Status ConfigReader::finish() {
  if (!status_.ok()) return status_;
  for (const auto& [key, value] : object_.items()) {
    if (known_.contains(key)) continue;
    return Status::invalid(key, shown(value),
                           fmt::format("is no key of the {} family; leave it out if the model does "
                                       "not depend on it",
                                       family_));
  }
  return Status();
}

}  // namespace weft
