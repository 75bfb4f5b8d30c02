#include "proto/json/field_reader.h"

#include <charconv>
#include <memory>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "proto/json/free_form.h"
#include "proto/json/names.h"
#include "proto/json/scalar_reader.h"
#include "proto/json/value.h"
#include "proto/options.pb.h"

namespace weft {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

Status read_message(const JsonValue& value, pb::Message& into, std::string_view path,
                    const ReadOptions& options) {
  if (is_free_form(*into.GetDescriptor())) {
    return read_free_form(value, into, path, options.lines);
  }
  return read_fields(value, into, path, options);
}

// One word where an object may stand: the value of the key that the field's rule names.
Status read_word(const JsonValue& value, pb::Message& into, const Field& field,
                 std::string_view path) {
  const Field& key = *field.message_type()->FindFieldByName(rule_of(field).word());
  if (!value.is_string() || find_enum(*key.enum_type(), value.text) == nullptr) {
    return wrong_value(value, path, "must be an object or " + one_of(enum_names(*key.enum_type())));
  }
  return read_scalar(value, *into.GetReflection()->MutableMessage(&into, &field), key, path);
}

Status read_list(const JsonValue& value, pb::Message& into, const Field& field,
                 std::string_view path, const ReadOptions& options) {
  if (!value.is_array()) return wrong_type(value, path, "a list");
  const proto::FieldRule& rule = rule_of(field);
  if (value.items.empty() && (rule.required() || rule.min() > 0)) {
    return wrong_value(value, path, "must not be empty");
  }
  for (size_t i = 0; i < value.items.size(); ++i) {
    const JsonValue& item = value.items[i];
    std::string where = join_index(path, i);
    if (options.lines != nullptr) options.lines->set(where, item.line);
    if (field.cpp_type() == Field::CPPTYPE_MESSAGE) {
      pb::Message& element = *into.GetReflection()->AddMessage(&into, &field);
      WEFT_RETURN_IF_ERROR(read_message(item, element, where, options));
    } else {
      WEFT_RETURN_IF_ERROR(read_scalar(item, into, field, where));
    }
  }
  return {};
}

// A map's keys are strings in JSON; numbers and booleans are read from them.
JsonValue key_value(const JsonMember& member, const Field& key) {
  JsonValue value;
  value.line = member.line;
  value.kind = JsonValue::Kind::kString;
  value.text = member.key;
  const char* end = member.key.data() + member.key.size();
  if (key.cpp_type() == Field::CPPTYPE_BOOL) {
    if (member.key != "true" && member.key != "false") return value;
    value.kind = JsonValue::Kind::kBool;
    value.boolean = member.key == "true";
  } else if (key.cpp_type() != Field::CPPTYPE_STRING) {
    auto whole = [&](std::from_chars_result parsed) {
      return parsed.ec == std::errc() && parsed.ptr == end;
    };
    if (whole(std::from_chars(member.key.data(), end, value.integer))) {
      value.kind = JsonValue::Kind::kInteger;
    } else if (whole(std::from_chars(member.key.data(), end, value.unsigned_integer))) {
      value.kind = JsonValue::Kind::kUnsigned;
    }
  }
  return value;
}

Status read_map(const JsonValue& value, pb::Message& into, const Field& field,
                std::string_view path, const ReadOptions& options) {
  if (!value.is_object()) return wrong_type(value, path, "an object");
  const Field& key_field = *field.message_type()->map_key();
  const Field& value_field = *field.message_type()->map_value();
  for (const JsonMember& member : value.members) {
    std::string where = join_key(path, member.key);
    if (options.lines != nullptr) options.lines->set(where, member.line);
    pb::Message& entry = *into.GetReflection()->AddMessage(&into, &field);
    WEFT_RETURN_IF_ERROR(read_scalar(key_value(member, key_field), entry, key_field, where));
    WEFT_RETURN_IF_ERROR(read_field(member.value, entry, value_field, where, options));
  }
  return {};
}

std::vector<std::string> keys_of(const pb::Descriptor& type) {
  std::vector<std::string> keys;
  for (int i = 0; i < type.field_count(); ++i) keys.push_back(type.field(i)->name());
  return keys;
}

Status refuse_second_of_oneof(const JsonMember& member, const pb::Message& into, const Field& field,
                              std::string_view path) {
  const pb::OneofDescriptor* oneof = field.real_containing_oneof();
  if (oneof == nullptr) return {};
  const Field* other = into.GetReflection()->GetOneofFieldDescriptor(into, oneof);
  if (other == nullptr) return {};
  return wrong_value(member.value, path, "cannot stand beside " + other->name());
}

}  // namespace

Result<const Field*> find_field(const pb::Message& in, std::string_view key,
                                std::string_view path) {
  const pb::Descriptor& type = *in.GetDescriptor();
  const Field* field = type.FindFieldByName(std::string(key));
  if (field != nullptr) return field;
  std::vector<std::string> keys = keys_of(type);
  std::string near = closest(key, keys);
  std::string rule = near.empty() ? "is not a known key; known here: " + one_of(keys)
                                  : "is not a known key; did you mean " + near + "?";
  return fail(Status::invalid(join_key(path, shortened(key)), "", rule));
}

Status read_field(const JsonValue& value, pb::Message& into, const Field& field,
                  std::string_view path, const ReadOptions& options) {
  if (value.is_null() && !(field.message_type() != nullptr &&
                           field.message_type()->full_name() == "google.protobuf.Value")) {
    if (options.lenient) return {};
    return wrong_value(value, path, "is empty; leave the key out or give it a value");
  }
  if (rule_of(field).output_only() && !options.allow_output_only && !options.lenient) {
    return wrong_value(value, path, "is set by the service; leave it out");
  }
  if (field.is_map()) return read_map(value, into, field, path, options);
  if (field.is_repeated()) return read_list(value, into, field, path, options);
  if (field.cpp_type() != Field::CPPTYPE_MESSAGE) return read_scalar(value, into, field, path);
  if (!rule_of(field).word().empty() && !value.is_object()) {
    return read_word(value, into, field, path);
  }
  return read_message(value, *into.GetReflection()->MutableMessage(&into, &field), path, options);
}

Status read_fields(const JsonValue& value, pb::Message& into, std::string_view path,
                   const ReadOptions& options) {
  if (!value.is_object()) return wrong_type(value, path, "an object");
  for (const JsonMember& member : value.members) {
    Result<const Field*> field = find_field(into, member.key, path);
    if (!field && options.lenient) continue;
    if (!field) return field.error().with_line(member.line);
    std::string where = join_key(path, member.key);
    if (options.lines != nullptr) options.lines->set(where, member.line);
    WEFT_RETURN_IF_ERROR(refuse_second_of_oneof(member, into, **field, where));
    WEFT_RETURN_IF_ERROR(read_field(member.value, into, **field, where, options));
  }
  return {};
}

Status read_value(const JsonValue& value, pb::Message& into, const ReadOptions& options) {
  std::unique_ptr<pb::Message> fresh(into.New());
  if (options.lines != nullptr) options.lines->clear();
  WEFT_RETURN_IF_ERROR(read_message(value, *fresh, "", options));
  into.GetReflection()->Swap(&into, fresh.get());
  return {};
}

Status read_json(std::string_view text, pb::Message& into, const ReadOptions& options) {
  WEFT_ASSIGN_OR_RETURN(JsonValue value, parse_json(text, options.limits));
  return read_value(value, into, options);
}

}  // namespace weft
