#include "proto/json/rules.h"

#include <set>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "proto/json/default_value.h"
#include "proto/json/field_reader.h"
#include "proto/json/names.h"
#include "proto/json/pattern.h"
#include "proto/json/rule_text.h"
#include "proto/json/value.h"
#include "proto/options.pb.h"

namespace weft {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

bool is_message(const Field& field) {
  return field.cpp_type() == Field::CPPTYPE_MESSAGE && !field.is_map();
}

bool has_required(const pb::Descriptor& type) {
  for (int i = 0; i < type.field_count(); ++i) {
    if (rule_of(*type.field(i)).required()) return true;
  }
  return false;
}

// What has to be asked for by a required field is not made of defaults.
bool has_defaults(const pb::Descriptor& type, std::set<const pb::Descriptor*>& seen) {
  if (is_free_form(type) || has_required(type) || !seen.insert(&type).second) return false;
  for (int i = 0; i < type.field_count(); ++i) {
    const Field& field = *type.field(i);
    if (!rule_of(field).default_value().empty()) return true;
    bool descend = is_message(field) && !field.is_repeated() && !rule_of(field).required();
    if (descend && has_defaults(*field.message_type(), seen)) return true;
  }
  return false;
}

bool is_absent(const pb::Message& message, const Field& field) {
  const pb::Reflection& reflection = *message.GetReflection();
  if (field.is_repeated()) return reflection.FieldSize(message, &field) == 0;
  return !reflection.HasField(message, &field);
}

Status apply_default(pb::Message& message, const Field& field) {
  WEFT_ASSIGN_OR_RETURN(JsonValue value, default_value(field));
  ReadOptions options;
  options.allow_output_only = true;
  return read_field(value, message, field, field.name(), options);
}

class Checker {
 public:
  explicit Checker(const LineMap* lines) : lines_(lines) {}

  Status check(const pb::Message& message, const std::string& path) {
    const pb::Descriptor& type = *message.GetDescriptor();
    if (is_free_form(type)) return {};
    for (int i = 0; i < type.field_count(); ++i) {
      const Field& field = *type.field(i);
      std::string where = join_key(path, field.name());
      WEFT_RETURN_IF_ERROR(check_field(message, field, where));
      if (is_message(field)) WEFT_RETURN_IF_ERROR(descend(message, field, where));
    }
    return {};
  }

 private:
  Status wrong(const std::string& path, std::string value, std::string rule) const {
    Status status = Status::invalid(path, std::move(value), std::move(rule));
    return status.with_line(lines_ == nullptr ? 0 : lines_->find(path));
  }

  Status descend(const pb::Message& message, const Field& field, const std::string& path) {
    const pb::Reflection& reflection = *message.GetReflection();
    if (!field.is_repeated()) {
      if (!reflection.HasField(message, &field)) return {};
      return check(reflection.GetMessage(message, &field), path);
    }
    for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
      WEFT_RETURN_IF_ERROR(check(reflection.GetRepeatedMessage(message, &field, i),
                                 join_index(path, static_cast<size_t>(i))));
    }
    return {};
  }

  Status check_field(const pb::Message& message, const Field& field,
                     const std::string& path) const {
    const proto::FieldRule& rule = rule_of(field);
    const pb::Reflection& reflection = *message.GetReflection();
    bool absent = is_absent(message, field);
    if (absent && rule.required()) return wrong(path, "", "is required");
    // A number without presence is always there; a zero may break its rule.
    bool optional = field.has_presence() || field.cpp_type() == Field::CPPTYPE_STRING;
    if (absent && (optional || field.is_repeated())) return {};
    if (field.is_repeated()) {
      int size = reflection.FieldSize(message, &field);
      return check_bounds(rule, size, path, std::to_string(size), "elements");
    }
    switch (field.cpp_type()) {
      case Field::CPPTYPE_STRING:
        return check_text(message, field, path);
      case Field::CPPTYPE_ENUM:
        if (rule.required() && enum_name(*reflection.GetEnum(message, &field)).empty()) {
          return wrong(path, "", "is required");
        }
        return {};
      case Field::CPPTYPE_BOOL:
      case Field::CPPTYPE_MESSAGE:
        return {};
      default: {
        double number = number_of(message, field);
        return check_bounds(rule, number, path, number_text(message, field), "");
      }
    }
  }

  static double number_of(const pb::Message& message, const Field& field) {
    const pb::Reflection& reflection = *message.GetReflection();
    switch (field.cpp_type()) {
      case Field::CPPTYPE_INT32:
        return reflection.GetInt32(message, &field);
      case Field::CPPTYPE_INT64:
        return static_cast<double>(reflection.GetInt64(message, &field));
      case Field::CPPTYPE_UINT32:
        return reflection.GetUInt32(message, &field);
      case Field::CPPTYPE_UINT64:
        return static_cast<double>(reflection.GetUInt64(message, &field));
      case Field::CPPTYPE_FLOAT:
        return static_cast<double>(reflection.GetFloat(message, &field));
      default:
        return reflection.GetDouble(message, &field);
    }
  }

  static std::string number_text(const pb::Message& message, const Field& field) {
    const pb::Reflection& reflection = *message.GetReflection();
    switch (field.cpp_type()) {
      case Field::CPPTYPE_INT64:
        return std::to_string(reflection.GetInt64(message, &field));
      case Field::CPPTYPE_UINT64:
        return std::to_string(reflection.GetUInt64(message, &field));
      default:
        return plain_number(number_of(message, field));
    }
  }

  Status check_bounds(const proto::FieldRule& rule, double number, const std::string& path,
                      std::string shown, std::string_view what) const {
    // Written so that a NaN breaks every bound.
    bool fits = (!rule.has_min() || number >= rule.min()) &&
                (!rule.has_max() || number <= rule.max()) &&
                (!rule.has_above() || number > rule.above()) &&
                (!rule.has_below() || number < rule.below());
    if (fits) return {};
    return wrong(path, std::move(shown), bounds_text(rule, what));
  }

  Status check_text(const pb::Message& message, const Field& field, const std::string& path) const {
    const proto::FieldRule& rule = rule_of(field);
    std::string text = message.GetReflection()->GetString(message, &field);
    if (rule.required() && text.empty()) return wrong(path, "", "must not be empty");
    double characters = 0;
    for (char c : text) characters += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    WEFT_RETURN_IF_ERROR(check_bounds(rule, characters, path, shortened(text), "characters"));
    if (rule.pattern().empty() || matches_pattern(text, rule.pattern())) return {};
    return wrong(path, shortened(text), "must match " + rule.pattern());
  }

  const LineMap* lines_;
};

}  // namespace

Status apply_defaults(pb::Message& message) {
  const pb::Descriptor& type = *message.GetDescriptor();
  if (is_free_form(type)) return {};
  const pb::Reflection& reflection = *message.GetReflection();
  for (int i = 0; i < type.field_count(); ++i) {
    const Field& field = *type.field(i);
    const proto::FieldRule& rule = rule_of(field);
    if (!rule.default_value().empty()) {
      if (is_absent(message, field)) WEFT_RETURN_IF_ERROR(apply_default(message, field));
    } else if (is_message(field) && field.is_repeated()) {
      for (int k = 0; k < reflection.FieldSize(message, &field); ++k) {
        WEFT_RETURN_IF_ERROR(
            apply_defaults(*reflection.MutableRepeatedMessage(&message, &field, k)));
      }
    } else if (is_message(field)) {
      std::set<const pb::Descriptor*> seen;
      bool make = !rule.required() && field.real_containing_oneof() == nullptr &&
                  has_defaults(*field.message_type(), seen);
      if (!make && !reflection.HasField(message, &field)) continue;
      WEFT_RETURN_IF_ERROR(apply_defaults(*reflection.MutableMessage(&message, &field)));
    }
  }
  return {};
}

Status check_rules(const pb::Message& message, const LineMap* lines) {
  return Checker(lines).check(message, "");
}

}  // namespace weft
