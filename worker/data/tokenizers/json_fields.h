// Reading tokenizer.json's components: each error names the field by its path.
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "proto/base/status.h"

namespace weft::tokenizers {

using nlohmann::json;

// An error about `field`; the value is shortened.
Status wrong(const std::string& field, const json& value, const std::string& rule);
// `value` is an object whose keys all are among `allowed`.
Status check_object(const std::string& field, const json& value,
                    std::initializer_list<std::string_view> allowed);
Result<std::string> string_at(const std::string& field, const json& object, const char* key);
// Missing or null: `otherwise`.
Result<bool> bool_at(const std::string& field, const json& object, const char* key, bool otherwise);
// An integer in [0, 2^31 - 2].
Result<int64_t> id_of(const std::string& field, const json& value);
// The member; null where it is missing.
const json& member(const json& object, const char* key);

}  // namespace weft::tokenizers
