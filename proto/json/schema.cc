#include "proto/json/schema.h"

#include <nlohmann/json.hpp>
#include <set>

#include "google/protobuf/descriptor.h"
#include "proto/base/check.h"
#include "proto/json/default_value.h"
#include "proto/json/names.h"
#include "proto/json/value.h"
#include "proto/options.pb.h"

namespace weft {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;
using Json = nlohmann::ordered_json;

Json type_schema(const Field& field) {
  switch (field.cpp_type()) {
    case Field::CPPTYPE_INT32:
      return {{"type", "integer"}, {"format", "int32"}};
    case Field::CPPTYPE_INT64:
      return {{"type", "integer"}, {"format", "int64"}};
    case Field::CPPTYPE_UINT32:
    case Field::CPPTYPE_UINT64:
      return {{"type", "integer"}, {"minimum", 0}};
    case Field::CPPTYPE_DOUBLE:
    case Field::CPPTYPE_FLOAT:
      return {{"type", "number"}};
    case Field::CPPTYPE_BOOL:
      return {{"type", "boolean"}};
    case Field::CPPTYPE_ENUM:
      return {{"type", "string"}, {"enum", enum_names(*field.enum_type())}};
    case Field::CPPTYPE_STRING:
      if (field.type() != Field::TYPE_BYTES) return {{"type", "string"}};
      return {{"type", "string"}, {"contentEncoding", "base64"}};
    case Field::CPPTYPE_MESSAGE:
      break;
  }
  const std::string& name = field.message_type()->full_name();
  if (name == "google.protobuf.Struct") return {{"type", "object"}};
  if (name == "google.protobuf.ListValue") return {{"type", "array"}};
  if (name == "google.protobuf.Value") return Json::object();
  return {{"$ref", "#/components/schemas/" + schema_name(*field.message_type())}};
}

void set_number(Json& schema, const char* key, double value) {
  if (value == static_cast<double>(static_cast<int64_t>(value))) {
    schema[key] = static_cast<int64_t>(value);
  } else {
    schema[key] = value;
  }
}

void add_bounds(Json& schema, const proto::FieldRule& rule, const Field& field) {
  bool text = field.cpp_type() == Field::CPPTYPE_STRING && !field.is_repeated();
  const char* min = field.is_repeated() ? "minItems" : text ? "minLength" : "minimum";
  const char* max = field.is_repeated() ? "maxItems" : text ? "maxLength" : "maximum";
  if (rule.has_min()) set_number(schema, min, rule.min());
  if (rule.has_max()) set_number(schema, max, rule.max());
  if (rule.has_above()) set_number(schema, "exclusiveMinimum", rule.above());
  if (rule.has_below()) set_number(schema, "exclusiveMaximum", rule.below());
  if (rule.required() && text && !rule.has_min()) schema["minLength"] = 1;
  if (!rule.pattern().empty()) schema["pattern"] = "^(?:" + rule.pattern() + ")$";
}

Json plain_json(const JsonValue& value) {
  switch (value.kind) {
    case JsonValue::Kind::kBool:
      return value.boolean;
    case JsonValue::Kind::kInteger:
      return value.integer;
    case JsonValue::Kind::kUnsigned:
      return value.unsigned_integer;
    case JsonValue::Kind::kNumber:
      return value.number;
    case JsonValue::Kind::kString:
      return value.text;
    case JsonValue::Kind::kArray: {
      Json list = Json::array();
      for (const JsonValue& item : value.items) list.push_back(plain_json(item));
      return list;
    }
    default:
      return nullptr;
  }
}

Json field_schema(const Field& field) {
  const proto::FieldRule& rule = rule_of(field);
  Json schema;
  if (field.is_map()) {
    schema = {{"type", "object"},
              {"additionalProperties", type_schema(*field.message_type()->map_value())}};
  } else if (field.is_repeated()) {
    schema = {{"type", "array"}, {"items", type_schema(field)}};
  } else if (!rule.word().empty()) {
    const Field& word = *field.message_type()->FindFieldByName(rule.word());
    schema = {{"oneOf", Json::array({type_schema(field), type_schema(word)})}};
  } else {
    schema = type_schema(field);
  }
  if (!rule.help().empty()) schema["description"] = rule.help();
  add_bounds(schema, rule, field);
  if (!rule.default_value().empty()) {
    Result<JsonValue> value = default_value(field);
    WEFT_CHECK(value.has_value(), "default of {}", field.full_name());
    schema["default"] = plain_json(*value);
  }
  if (rule.output_only()) schema["readOnly"] = true;
  if (!rule.unit().empty()) schema["x-unit"] = rule.unit();
  return schema;
}

void collect(const pb::Descriptor& type, bool answer, std::set<const pb::Descriptor*>& seen,
             Json& schemas) {
  if (is_free_form(type) || !seen.insert(&type).second) return;
  if (!type.options().map_entry()) schemas[schema_name(type)] = json_schema(type, answer);
  for (int i = 0; i < type.field_count(); ++i) {
    if (type.field(i)->message_type() != nullptr) {
      collect(*type.field(i)->message_type(), answer, seen, schemas);
    }
  }
}

// As message_json.h has it: unset messages and optional fields, UNSPECIFIED, and lists that may not
// be empty are left out.
bool is_always_written(const Field& field) {
  if (field.is_map()) return true;
  if (field.is_repeated()) return rule_of(field).min() < 1;
  return !field.has_presence() && field.cpp_type() != Field::CPPTYPE_ENUM;
}

}  // namespace

Json json_schema(const pb::Descriptor& type, bool answer) {
  Json properties = Json::object();
  Json required = Json::array();
  for (int i = 0; i < type.field_count(); ++i) {
    const Field& field = *type.field(i);
    properties[field.name()] = field_schema(field);
    if (rule_of(field).required() || (answer && is_always_written(field)))
      required.push_back(field.name());
  }
  Json schema = {{"type", "object"}};
  if (!required.empty()) schema["required"] = required;
  schema["properties"] = properties;
  schema["additionalProperties"] = false;
  return schema;
}

std::string schema_name(const pb::Descriptor& type) {
  const pb::Descriptor* outer = type.containing_type();
  return (outer == nullptr ? "" : schema_name(*outer)) + type.name();
}

std::string component_schemas(const std::vector<const pb::Descriptor*>& requests,
                              const std::vector<const pb::Descriptor*>& answers) {
  std::set<const pb::Descriptor*> seen;
  Json schemas = Json::object();
  for (const pb::Descriptor* root : requests) collect(*root, false, seen, schemas);
  for (const pb::Descriptor* root : answers) collect(*root, true, seen, schemas);
  return schemas.dump();
}

}  // namespace weft
