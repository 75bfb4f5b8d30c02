#include "proto/json/scalar_reader.h"

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "proto/json/base64.h"
#include "proto/json/names.h"
#include "proto/json/rule_text.h"
#include "proto/json/value.h"
#include "proto/options.pb.h"

namespace weft {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;
using Kind = JsonValue::Kind;

// Calls Set for a single field and Add for a list.
template <typename Set, typename Add, typename T>
void store(pb::Message& into, const Field& field, Set set, Add add, T&& value) {
  const pb::Reflection& reflection = *into.GetReflection();
  if (field.is_repeated()) {
    (reflection.*add)(&into, &field, std::forward<T>(value));
  } else {
    (reflection.*set)(&into, &field, std::forward<T>(value));
  }
}

// Of the field's own bounds where it has them, else of its type.
template <typename T>
Status out_of_range(const JsonValue& value, const Field& field, std::string_view path) {
  const proto::FieldRule& rule = rule_of(field);
  if (rule.has_min() && rule.has_max()) return wrong_value(value, path, bounds_text(rule, ""));
  return wrong_value(value, path,
                     "must be between " + std::to_string(std::numeric_limits<T>::min()) + " and " +
                         std::to_string(std::numeric_limits<T>::max()));
}

template <typename T>
Result<T> integer_of(const JsonValue& value, const Field& field, std::string_view path) {
  if (value.kind == Kind::kNumber) {
    return fail(wrong_value(value, path, "must be an integer, without fraction or exponent"));
  }
  if (!value.is_number()) return fail(wrong_type(value, path, "an integer"));
  if (value.kind == Kind::kUnsigned) {
    if constexpr (std::is_same_v<T, uint64_t>) return value.unsigned_integer;
    return fail(out_of_range<T>(value, field, path));
  }
  if (!std::in_range<T>(value.integer)) return fail(out_of_range<T>(value, field, path));
  return static_cast<T>(value.integer);
}

template <typename T, typename Set, typename Add>
Status store_integer(const JsonValue& value, pb::Message& into, const Field& field,
                     std::string_view path, Set set, Add add) {
  WEFT_ASSIGN_OR_RETURN(T number, integer_of<T>(value, field, path));
  store(into, field, set, add, number);
  return {};
}

Status store_number(const JsonValue& value, pb::Message& into, const Field& field,
                    std::string_view path) {
  using R = pb::Reflection;
  if (!value.is_number()) return wrong_type(value, path, "a number");
  double number = value.as_double();
  if (field.cpp_type() == Field::CPPTYPE_DOUBLE) {
    store(into, field, &R::SetDouble, &R::AddDouble, number);
    return {};
  }
  if (std::fabs(number) > static_cast<double>(FLT_MAX)) {
    return wrong_value(value, path, "must fit a 32-bit float");
  }
  store(into, field, &R::SetFloat, &R::AddFloat, static_cast<float>(number));
  return {};
}

Status store_enum(const JsonValue& value, pb::Message& into, const Field& field,
                  std::string_view path) {
  using R = pb::Reflection;
  std::vector<std::string> names = enum_names(*field.enum_type());
  if (!value.is_string()) return wrong_type(value, path, "a string, " + one_of(names));
  const pb::EnumValueDescriptor* found = find_enum(*field.enum_type(), value.text);
  if (found == nullptr) {
    std::string rule = "must be " + one_of(names);
    std::string near = names.size() > 1 ? closest(value.text, names) : "";
    if (!near.empty()) rule += "; did you mean " + near + "?";
    return wrong_value(value, path, rule);
  }
  store(into, field, &R::SetEnum, &R::AddEnum, found);
  return {};
}

Status store_text(const JsonValue& value, pb::Message& into, const Field& field,
                  std::string_view path) {
  using R = pb::Reflection;
  if (!value.is_string()) {
    bool quotes_help = value.is_number() || value.kind == Kind::kBool;
    return wrong_type(value, path, quotes_help ? "a string (put it in quotes)" : "a string");
  }
  std::string text = value.text;
  if (field.type() == Field::TYPE_BYTES) {
    std::optional<std::string> bytes = base64_decode(value.text);
    if (!bytes) return wrong_value(value, path, "must be base64 with padding");
    text = std::move(*bytes);
  }
  store(into, field, &R::SetString, &R::AddString, std::move(text));
  return {};
}

}  // namespace

Status wrong_value(const JsonValue& value, std::string_view path, std::string rule) {
  Status status = Status::invalid(path.empty() ? "document" : std::string(path), value.shown(),
                                  std::move(rule));
  return status.with_line(value.line);
}

Status wrong_type(const JsonValue& value, std::string_view path, std::string_view wanted) {
  return wrong_value(value, path,
                     "must be " + std::string(wanted) + ", not " + std::string(value.kind_name()));
}

Status read_scalar(const JsonValue& value, pb::Message& into, const Field& field,
                   std::string_view path) {
  using R = pb::Reflection;
  switch (field.cpp_type()) {
    case Field::CPPTYPE_INT32:
      return store_integer<int32_t>(value, into, field, path, &R::SetInt32, &R::AddInt32);
    case Field::CPPTYPE_INT64:
      return store_integer<int64_t>(value, into, field, path, &R::SetInt64, &R::AddInt64);
    case Field::CPPTYPE_UINT32:
      return store_integer<uint32_t>(value, into, field, path, &R::SetUInt32, &R::AddUInt32);
    case Field::CPPTYPE_UINT64:
      return store_integer<uint64_t>(value, into, field, path, &R::SetUInt64, &R::AddUInt64);
    case Field::CPPTYPE_DOUBLE:
    case Field::CPPTYPE_FLOAT:
      return store_number(value, into, field, path);
    case Field::CPPTYPE_BOOL:
      if (value.kind != Kind::kBool) return wrong_type(value, path, "true or false");
      store(into, field, &R::SetBool, &R::AddBool, value.boolean);
      return {};
    case Field::CPPTYPE_ENUM:
      return store_enum(value, into, field, path);
    default:
      return store_text(value, into, field, path);
  }
}

}  // namespace weft
