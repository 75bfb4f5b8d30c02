// google.protobuf.Struct, Value and ListValue as plain JSON.
// Thread safety: pure functions.
// Invariant: a whole number that a double cannot hold exactly is refused, never rounded.
#pragma once

#include <string_view>

#include "proto/base/status.h"

namespace google::protobuf {
class Message;
class Struct;
class Value;
}  // namespace google::protobuf

namespace weft {

class JsonWriter;
class LineMap;
struct JsonValue;

// `into` is a Struct, Value or ListValue; `path` is its field for errors.
Status read_free_form(const JsonValue& value, google::protobuf::Message& into,
                      std::string_view path, LineMap* lines);
Status read_free_value(const JsonValue& value, google::protobuf::Value& into, std::string_view path,
                       LineMap* lines);
void write_free_form(const google::protobuf::Message& message, JsonWriter& out);

}  // namespace weft
