// A field's default as a parsed value.
// Thread safety: pure functions.
#pragma once

#include "proto/base/status.h"
#include "proto/json/value.h"

namespace google::protobuf {
class FieldDescriptor;
}

namespace weft {

// The rule's default_value, read as YAML; for a string field the text as it stands.
Result<JsonValue> default_value(const google::protobuf::FieldDescriptor& field);

}  // namespace weft
