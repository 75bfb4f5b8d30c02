#include "worker/data/tokenizers/json_fields.h"

#include <algorithm>

namespace weft::tokenizers {

Status wrong(const std::string& field, const json& value, const std::string& rule) {
  std::string text = value.is_structured()
                         ? std::string(value.type_name())
                         : value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return Status::invalid(field, text, rule);
}

Status check_object(const std::string& field, const json& value,
                    std::initializer_list<std::string_view> allowed) {
  if (!value.is_object()) return wrong(field, value, "must be an object");
  for (const auto& [key, entry] : value.items()) {
    if (std::find(allowed.begin(), allowed.end(), key) == allowed.end()) {
      return wrong(field.empty() ? key : field + "." + key, entry, "is not a known key");
    }
  }
  return {};
}

Result<std::string> string_at(const std::string& field, const json& object, const char* key) {
  const json& value = member(object, key);
  if (!value.is_string()) return fail(wrong(field + "." + key, value, "must be a string"));
  return value.get<std::string>();
}

Result<bool> bool_at(const std::string& field, const json& object, const char* key,
                     bool otherwise) {
  const json& value = member(object, key);
  if (value.is_null()) return otherwise;
  if (!value.is_boolean()) return fail(wrong(field + "." + key, value, "must be true or false"));
  return value.get<bool>();
}

Result<int64_t> id_of(const std::string& field, const json& value) {
  constexpr uint64_t kMost = (uint64_t{1} << 31) - 2;
  if (!value.is_number_unsigned() || value.get<uint64_t>() > kMost) {
    return fail(wrong(field, value, "must be an id, an integer in [0, 2147483646]"));
  }
  return static_cast<int64_t>(value.get<uint64_t>());
}

const json& member(const json& object, const char* key) {
  static const json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

}  // namespace weft::tokenizers
