#include "proto/json/default_value.h"

#include "google/protobuf/descriptor.h"
#include "proto/json/names.h"
#include "proto/json/yaml.h"
#include "proto/json/yaml_scalar.h"
#include "proto/options.pb.h"

namespace weft {

Result<JsonValue> default_value(const google::protobuf::FieldDescriptor& field) {
  using Field = google::protobuf::FieldDescriptor;
  const std::string& text = rule_of(field).default_value();
  if (field.cpp_type() == Field::CPPTYPE_STRING && !field.is_repeated()) return string_value(text);
  return parse_yaml(text);
}

}  // namespace weft
