// How the schema's names are written in JSON and YAML, and what its fields' rules are.
// Thread safety: pure functions over descriptors, which live as long as the program.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace google::protobuf {
class Descriptor;
class EnumDescriptor;
class EnumValueDescriptor;
class FieldDescriptor;
}  // namespace google::protobuf
namespace weft::proto {
class FieldRule;
}

namespace weft {

const proto::FieldRule& rule_of(const google::protobuf::FieldDescriptor& field);

// JOB_KIND_MULTI_TASK is "multi_task". JOB_KIND_UNSPECIFIED has no name: "".
std::string enum_name(const google::protobuf::EnumValueDescriptor& value);
// The value of that name, or null. UNSPECIFIED cannot be asked for.
const google::protobuf::EnumValueDescriptor* find_enum(const google::protobuf::EnumDescriptor& type,
                                                       std::string_view name);
std::vector<std::string> enum_names(const google::protobuf::EnumDescriptor& type);

// "a, b or c".
std::string one_of(const std::vector<std::string>& names);
// The candidate that `word` is probably a slip of; empty: none is near.
std::string closest(std::string_view word, const std::vector<std::string>& candidates);

// Whether the type is google.protobuf.Struct, Value or ListValue: plain JSON.
bool is_free_form(const google::protobuf::Descriptor& type);

}  // namespace weft
