// Sets fields of a message from parsed values; the part that read_value and set_path share.
// Thread safety: pure functions. Ownership: none.
#pragma once

#include <string_view>

#include "proto/base/status.h"
#include "proto/json/message_json.h"

namespace google::protobuf {
class FieldDescriptor;
}

namespace weft {

// Replaces one field, whole: for a list every element, for a map every entry.
Status read_field(const JsonValue& value, google::protobuf::Message& into,
                  const google::protobuf::FieldDescriptor& field, std::string_view path,
                  const ReadOptions& options);

// Sets the fields that `value`, an object, names.
Status read_fields(const JsonValue& value, google::protobuf::Message& into, std::string_view path,
                   const ReadOptions& options);

// The field with this key, or an error that names the nearest known ones.
Result<const google::protobuf::FieldDescriptor*> find_field(const google::protobuf::Message& in,
                                                            std::string_view key,
                                                            std::string_view path);

}  // namespace weft
