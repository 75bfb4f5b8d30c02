#include "proto/json/free_form.h"

#include <algorithm>
#include <vector>

#include "google/protobuf/struct.pb.h"
#include "proto/json/value.h"
#include "proto/json/writer.h"

namespace weft {
namespace {

namespace pb = google::protobuf;
constexpr int64_t kWholeMax = int64_t{1} << 53;

Status read_struct(const JsonValue& value, pb::Struct& into, std::string_view path,
                   LineMap* lines) {
  auto& fields = *into.mutable_fields();
  for (const JsonMember& member : value.members) {
    std::string where = join_key(path, member.key);
    if (lines != nullptr) lines->set(where, member.line);
    WEFT_RETURN_IF_ERROR(read_free_value(member.value, fields[member.key], where, lines));
  }
  return {};
}

Status read_list(const JsonValue& value, pb::ListValue& into, std::string_view path,
                 LineMap* lines) {
  for (size_t i = 0; i < value.items.size(); ++i) {
    std::string where = join_index(path, i);
    if (lines != nullptr) lines->set(where, value.items[i].line);
    WEFT_RETURN_IF_ERROR(read_free_value(value.items[i], *into.add_values(), where, lines));
  }
  return {};
}

void write_value(const pb::Value& value, JsonWriter& out) {
  switch (value.kind_case()) {
    case pb::Value::kNumberValue:
      out.plain_number(value.number_value());
      break;
    case pb::Value::kStringValue:
      out.string(value.string_value());
      break;
    case pb::Value::kBoolValue:
      out.boolean(value.bool_value());
      break;
    case pb::Value::kStructValue:
      write_free_form(value.struct_value(), out);
      break;
    case pb::Value::kListValue:
      write_free_form(value.list_value(), out);
      break;
    default:
      out.null();
  }
}

}  // namespace

Status read_free_value(const JsonValue& value, pb::Value& into, std::string_view path,
                       LineMap* lines) {
  switch (value.kind) {
    case JsonValue::Kind::kNull:
      into.set_null_value(pb::NULL_VALUE);
      return {};
    case JsonValue::Kind::kBool:
      into.set_bool_value(value.boolean);
      return {};
    case JsonValue::Kind::kString:
      into.set_string_value(value.text);
      return {};
    case JsonValue::Kind::kArray:
      return read_list(value, *into.mutable_list_value(), path, lines);
    case JsonValue::Kind::kObject:
      return read_struct(value, *into.mutable_struct_value(), path, lines);
    default:
      break;
  }
  bool small = value.kind == JsonValue::Kind::kInteger && value.integer <= kWholeMax &&
               value.integer >= -kWholeMax;
  if (value.kind != JsonValue::Kind::kNumber && !small) {
    return Status::invalid(std::string(path), value.shown(), "must be within 2^53 of 0")
        .with_line(value.line);
  }
  into.set_number_value(value.as_double());
  return {};
}

Status read_free_form(const JsonValue& value, pb::Message& into, std::string_view path,
                      LineMap* lines) {
  auto wrong = [&](std::string_view wanted) {
    std::string rule = "must be " + std::string(wanted) + ", not " + std::string(value.kind_name());
    return Status::invalid(std::string(path), value.shown(), rule).with_line(value.line);
  };
  if (auto* object = pb::DynamicCastToGenerated<pb::Struct>(&into)) {
    if (!value.is_object()) return wrong("an object");
    return read_struct(value, *object, path, lines);
  }
  if (auto* list = pb::DynamicCastToGenerated<pb::ListValue>(&into)) {
    if (!value.is_array()) return wrong("a list");
    return read_list(value, *list, path, lines);
  }
  return read_free_value(value, *pb::DynamicCastToGenerated<pb::Value>(&into), path, lines);
}

void write_free_form(const pb::Message& message, JsonWriter& out) {
  if (const auto* object = pb::DynamicCastToGenerated<pb::Struct>(&message)) {
    std::vector<std::string_view> keys;  // a map has no order; ours is the alphabet's
    for (const auto& field : object->fields()) keys.push_back(field.first);
    std::sort(keys.begin(), keys.end());
    out.begin_object();
    for (std::string_view key : keys) {
      out.key(key);
      write_value(object->fields().at(std::string(key)), out);
    }
    out.end_object();
  } else if (const auto* list = pb::DynamicCastToGenerated<pb::ListValue>(&message)) {
    out.begin_array();
    for (const pb::Value& item : list->values()) write_value(item, out);
    out.end_array();
  } else {
    write_value(*pb::DynamicCastToGenerated<pb::Value>(&message), out);
  }
}

}  // namespace weft
