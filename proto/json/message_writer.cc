#include <algorithm>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "proto/json/base64.h"
#include "proto/json/free_form.h"
#include "proto/json/message_json.h"
#include "proto/json/names.h"
#include "proto/json/writer.h"
#include "proto/options.pb.h"

namespace weft {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

void write_message(const pb::Message& message, const WriteOptions& options, JsonWriter& out);

// One value of the field: the field itself (index -1) or an element of a list.
struct Reader {
  const pb::Message& message;
  const pb::Reflection& reflection;
  const Field* field;
  int index;

  template <typename Single, typename Repeated>
  auto get(Single single, Repeated repeated) const {
    return index < 0 ? (reflection.*single)(message, field)
                     : (reflection.*repeated)(message, field, index);
  }
};

void write_text(const Reader& from, JsonWriter& out) {
  std::string scratch;
  const std::string& text =
      from.index < 0 ? from.reflection.GetStringReference(from.message, from.field, &scratch)
                     : from.reflection.GetRepeatedStringReference(from.message, from.field,
                                                                  from.index, &scratch);
  out.string(from.field->type() == Field::TYPE_BYTES ? base64_encode(text) : text);
}

void write_enum(const Reader& from, JsonWriter& out) {
  using R = pb::Reflection;
  const pb::EnumValueDescriptor* value = from.get(&R::GetEnum, &R::GetRepeatedEnum);
  std::string name = enum_name(*value);
  if (name.empty()) {
    out.null();
  } else {
    out.string(name);
  }
}

void write_one(const Reader& from, const WriteOptions& options, JsonWriter& out) {
  using R = pb::Reflection;
  switch (from.field->cpp_type()) {
    case Field::CPPTYPE_INT32:
      out.integer(from.get(&R::GetInt32, &R::GetRepeatedInt32));
      break;
    case Field::CPPTYPE_INT64:
      out.integer(from.get(&R::GetInt64, &R::GetRepeatedInt64));
      break;
    case Field::CPPTYPE_UINT32:
      out.unsigned_integer(from.get(&R::GetUInt32, &R::GetRepeatedUInt32));
      break;
    case Field::CPPTYPE_UINT64:
      out.unsigned_integer(from.get(&R::GetUInt64, &R::GetRepeatedUInt64));
      break;
    case Field::CPPTYPE_DOUBLE:
      out.number(from.get(&R::GetDouble, &R::GetRepeatedDouble));
      break;
    case Field::CPPTYPE_FLOAT:
      out.number(static_cast<double>(from.get(&R::GetFloat, &R::GetRepeatedFloat)));
      break;
    case Field::CPPTYPE_BOOL:
      out.boolean(from.get(&R::GetBool, &R::GetRepeatedBool));
      break;
    case Field::CPPTYPE_ENUM:
      write_enum(from, out);
      break;
    case Field::CPPTYPE_STRING:
      write_text(from, out);
      break;
    case Field::CPPTYPE_MESSAGE:
      write_message(from.index < 0
                        ? from.reflection.GetMessage(from.message, from.field)
                        : from.reflection.GetRepeatedMessage(from.message, from.field, from.index),
                    options, out);
      break;
  }
}

std::string key_text(const pb::Message& entry, const Field* key) {
  const pb::Reflection& reflection = *entry.GetReflection();
  switch (key->cpp_type()) {
    case Field::CPPTYPE_STRING:
      return reflection.GetString(entry, key);
    case Field::CPPTYPE_INT32:
      return std::to_string(reflection.GetInt32(entry, key));
    case Field::CPPTYPE_INT64:
      return std::to_string(reflection.GetInt64(entry, key));
    case Field::CPPTYPE_UINT32:
      return std::to_string(reflection.GetUInt32(entry, key));
    case Field::CPPTYPE_UINT64:
      return std::to_string(reflection.GetUInt64(entry, key));
    default:
      return reflection.GetBool(entry, key) ? "true" : "false";
  }
}

void write_map(const pb::Message& message, const Field* field, const WriteOptions& options,
               JsonWriter& out) {
  const pb::Reflection& reflection = *message.GetReflection();
  const Field* key = field->message_type()->map_key();
  const Field* value = field->message_type()->map_value();
  std::vector<std::pair<std::string, const pb::Message*>> entries;
  for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
    const pb::Message& entry = reflection.GetRepeatedMessage(message, field, i);
    entries.emplace_back(key_text(entry, key), &entry);
  }
  std::sort(entries.begin(), entries.end());
  out.begin_object();
  for (const auto& [text, entry] : entries) {
    out.key(text);
    write_one({*entry, *entry->GetReflection(), value, -1}, options, out);
  }
  out.end_object();
}

// Whether the field is left out of the text.
bool is_left_out(const pb::Message& message, const Field* field) {
  const pb::Reflection& reflection = *message.GetReflection();
  if (field->is_repeated()) {
    const proto::FieldRule& rule = rule_of(*field);
    return reflection.FieldSize(message, field) == 0 && (rule.required() || rule.min() > 0);
  }
  if (field->has_presence()) return !reflection.HasField(message, field);
  return field->cpp_type() == Field::CPPTYPE_ENUM &&
         enum_name(*reflection.GetEnum(message, field)).empty();
}

void write_message(const pb::Message& message, const WriteOptions& options, JsonWriter& out) {
  const pb::Descriptor& type = *message.GetDescriptor();
  if (is_free_form(type)) {
    write_free_form(message, out);
    return;
  }
  const pb::Reflection& reflection = *message.GetReflection();
  out.begin_object();
  for (int i = 0; i < type.field_count(); ++i) {
    const Field* field = type.field(i);
    if (is_left_out(message, field)) {
      if (options.unset_as_null && !field->is_repeated()) out.key(field->name()).null();
      continue;
    }
    out.key(field->name());
    if (field->is_map()) {
      write_map(message, field, options, out);
    } else if (field->is_repeated()) {
      out.begin_array();
      for (int k = 0; k < reflection.FieldSize(message, field); ++k) {
        write_one({message, reflection, field, k}, options, out);
      }
      out.end_array();
    } else {
      write_one({message, reflection, field, -1}, options, out);
    }
  }
  out.end_object();
}

}  // namespace

std::string write_json(const pb::Message& message, const WriteOptions& options) {
  JsonWriter out(options.indent);
  write_message(message, options, out);
  return out.take();
}

JsonWriter& JsonWriter::message(const pb::Message& message) {
  write_message(message, {}, *this);
  return *this;
}

JsonWriter& JsonWriter::message(const pb::Message& message, const WriteOptions& options) {
  write_message(message, options, *this);
  return *this;
}

}  // namespace weft
