// Sets one scalar of a message (a field, or a new element of a list) from a parsed value.
// Thread safety: pure functions.
#pragma once

#include <string_view>

#include "proto/base/status.h"

namespace google::protobuf {
class FieldDescriptor;
class Message;
}  // namespace google::protobuf

namespace weft {

struct JsonValue;

// An error about `value` at `path`, with its line.
Status wrong_value(const JsonValue& value, std::string_view path, std::string rule);
Status wrong_type(const JsonValue& value, std::string_view path, std::string_view wanted);

// `field` is no message; an element is added where it is a list.
Status read_scalar(const JsonValue& value, google::protobuf::Message& into,
                   const google::protobuf::FieldDescriptor& field, std::string_view path);

}  // namespace weft
