#include "proto/json/yaml.h"

#include <charconv>
#include <memory>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/struct.pb.h"
#include "proto/json/field_reader.h"
#include "proto/json/free_form.h"
#include "proto/json/names.h"
#include "proto/json/scalar_reader.h"

namespace weft {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

struct Step {
  std::string key;
  int index = -1;  // of "[3]"; -1: none
};

Result<std::vector<Step>> split_path(std::string_view path) {
  auto wrong = [&](std::string rule) {
    return fail(Status::invalid(path.empty() ? "path" : std::string(path), "", std::move(rule)));
  };
  std::vector<Step> steps;
  while (true) {
    size_t dot = path.find('.');
    std::string_view part = path.substr(0, dot);
    Step step;
    size_t bracket = part.find('[');
    step.key = part.substr(0, bracket);
    if (step.key.empty()) return wrong("has an empty part; write it like training.steps");
    if (bracket != std::string_view::npos) {
      const char* begin = part.data() + bracket + 1;
      const char* end = part.data() + part.size() - 1;
      bool closed = part.back() == ']' && begin < end && *begin >= '0' && *begin <= '9';
      std::from_chars_result parsed{begin, std::errc()};
      if (closed) parsed = std::from_chars(begin, end, step.index);
      if (!closed || parsed.ec != std::errc() || parsed.ptr != end) {
        return wrong("has a malformed index; write it like tasks[0].weight");
      }
    }
    steps.push_back(std::move(step));
    if (steps.size() > 64) return wrong("has more than 64 parts");
    if (dot == std::string_view::npos) return steps;
    path.remove_prefix(dot + 1);
  }
}

void clear_lines(JsonValue& value) {
  value.line = 0;
  for (JsonValue& item : value.items) clear_lines(item);
  for (JsonMember& member : value.members) {
    member.line = 0;
    clear_lines(member.value);
  }
}

bool is_blank(std::string_view yaml) {
  return yaml.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

// What is wrong with a text that is the value of `path`, where a reader calls the text the
// document.
Status inside(std::string_view path, std::string_view yaml, const Status& wrong) {
  const std::string& field = wrong.field();
  std::string at(path);
  if (field.starts_with('[')) {
    at += field;
  } else if (!field.empty() && field != "document") {
    at = join_key(path, field);
  }
  return Status::invalid(at, wrong.value().empty() ? shortened(yaml) : wrong.value(),
                         wrong.rule().empty() ? "is not a YAML value" : wrong.rule());
}

// A new value for `path`; where a string is wanted, "10" and "true" are text.
Result<JsonValue> parse_setting(std::string_view path, std::string_view yaml) {
  if (is_blank(yaml)) {
    return fail(Status::invalid(std::string(path), "", "needs a value, as in training.steps=100"));
  }
  Result<JsonValue> value = parse_yaml(yaml);
  if (!value) return fail(inside(path, yaml, value.error()));
  clear_lines(*value);
  return value;
}

Status no_index(std::string_view path, int size) {
  return Status::invalid(std::string(path), "",
                         "is beyond the list, which has " + std::to_string(size) +
                             (size == 1 ? " element" : " elements"));
}

Status set_free(pb::Struct& object, const std::vector<Step>& steps, size_t at, std::string path,
                std::string_view yaml) {
  pb::Value* value = nullptr;
  pb::Struct* inside = &object;
  for (; at < steps.size(); ++at) {
    path = join_key(path, steps[at].key);
    value = &(*inside->mutable_fields())[steps[at].key];
    if (steps[at].index >= 0) {
      path = join_index(path, static_cast<size_t>(steps[at].index));
      auto& list = *value->mutable_list_value();
      if (steps[at].index > list.values_size()) return no_index(path, list.values_size());
      if (steps[at].index == list.values_size()) list.add_values();
      value = list.mutable_values(steps[at].index);
    }
    if (at + 1 < steps.size()) inside = value->mutable_struct_value();
  }
  WEFT_ASSIGN_OR_RETURN(JsonValue parsed, parse_setting(path, yaml));
  value->Clear();
  return read_free_value(parsed, *value, path, nullptr);
}

class Setter {
 public:
  Setter(const std::vector<Step>& steps, std::string_view yaml) : steps_(steps), yaml_(yaml) {}

  Status run(pb::Message& root) {
    pb::Message* at = &root;
    for (size_t i = 0; i < steps_.size(); ++i) {
      bool last = i + 1 == steps_.size();
      WEFT_ASSIGN_OR_RETURN(const Field* field, find_field(*at, steps_[i].key, path_));
      path_ = join_key(path_, steps_[i].key);
      if (field->is_map() && !last) return set_map_entry(*at, *field, i + 1);
      if (steps_[i].index >= 0) {
        if (!field->is_repeated() || field->is_map()) {
          return Status::invalid(path_, "", "is not a list");
        }
        WEFT_RETURN_IF_ERROR(enter_list(*at, *field, steps_[i].index, last, &at));
        if (last) return {};
        continue;
      }
      if (last) return set_field(*at, *field);
      if (field->is_repeated() || field->cpp_type() != Field::CPPTYPE_MESSAGE) {
        return Status::invalid(path_, "",
                               field->is_repeated()
                                   ? "is a list; say which element: " + path_ + "[0]"
                                   : "has no keys below it");
      }
      at = at->GetReflection()->MutableMessage(at, field);
      if (auto* object = pb::DynamicCastToGenerated<pb::Struct>(at)) {
        return set_free(*object, steps_, i + 1, path_, yaml_);
      }
    }
    return {};
  }

 private:
  Result<JsonValue> setting(const Field& field) const {
    const bool text = field.cpp_type() == Field::CPPTYPE_STRING && !field.is_repeated();
    JsonValue value;
    if (!text || !is_blank(yaml_)) {
      WEFT_ASSIGN_OR_RETURN(value, parse_setting(path_, yaml_));
    }
    bool scalar = !value.is_array() && !value.is_object();
    if (scalar && field.cpp_type() == Field::CPPTYPE_STRING && !value.is_string()) {
      value = JsonValue();
      value.kind = JsonValue::Kind::kString;
      value.text = yaml_;
    }
    return value;
  }

  Status set_field(pb::Message& at, const Field& field) {
    WEFT_ASSIGN_OR_RETURN(JsonValue value, setting(field));
    at.GetReflection()->ClearField(&at, &field);
    return read_field(value, at, field, path_, {});
  }

  // Goes to element `index`, adding one at the end; sets it where it is the path's last part.
  Status enter_list(pb::Message& at, const Field& field, int index, bool last, pb::Message** next) {
    const pb::Reflection& reflection = *at.GetReflection();
    int size = reflection.FieldSize(at, &field);
    path_ = join_index(path_, static_cast<size_t>(index));
    if (index > size) return no_index(path_, size);
    bool is_message = field.cpp_type() == Field::CPPTYPE_MESSAGE;
    if (is_message) {
      *next = index == size ? reflection.AddMessage(&at, &field)
                            : reflection.MutableRepeatedMessage(&at, &field, index);
      if (!last) return {};
      WEFT_ASSIGN_OR_RETURN(JsonValue value, setting(field));
      (*next)->Clear();
      return read_fields(value, **next, path_, {});
    }
    if (!last) return Status::invalid(path_, "", "has no keys below it");
    WEFT_ASSIGN_OR_RETURN(JsonValue value, setting(field));
    WEFT_RETURN_IF_ERROR(read_scalar(value, at, field, path_));  // adds it at the end
    reflection.SwapElements(&at, &field, index, size);
    if (index < size) reflection.RemoveLast(&at, &field);
    return {};
  }

  // Whatever stands behind a map is one key of it, dots and all: labels.example.org/team.
  Status set_map_entry(pb::Message& at, const Field& map, size_t first) {
    std::string key;
    for (size_t i = first; i < steps_.size(); ++i) {
      key += (i == first ? "" : ".") + steps_[i].key;
      if (steps_[i].index >= 0) {
        return Status::invalid(join_key(path_, key), "", "is not a list");
      }
    }
    const Field& key_field = *map.message_type()->map_key();
    const Field& value_field = *map.message_type()->map_value();
    path_ = join_key(path_, key);
    if (key_field.cpp_type() != Field::CPPTYPE_STRING) {
      return Status::invalid(path_, "", "has keys that are not strings; set the whole map");
    }
    WEFT_ASSIGN_OR_RETURN(JsonValue value, setting(value_field));
    const pb::Reflection& reflection = *at.GetReflection();
    pb::Message* entry = nullptr;
    for (int i = 0; i < reflection.FieldSize(at, &map); ++i) {
      pb::Message* candidate = reflection.MutableRepeatedMessage(&at, &map, i);
      if (candidate->GetReflection()->GetString(*candidate, &key_field) == key) entry = candidate;
    }
    if (entry == nullptr) entry = reflection.AddMessage(&at, &map);
    entry->GetReflection()->SetString(entry, &key_field, key);
    entry->GetReflection()->ClearField(entry, &value_field);
    return read_field(value, *entry, value_field, path_, {});
  }

  const std::vector<Step>& steps_;
  std::string_view yaml_;
  std::string path_;
};

}  // namespace

Status read_yaml(std::string_view text, pb::Message& into, const ReadOptions& options) {
  ParseLimits limits = options.limits;
  limits.bytes_max = std::min(limits.bytes_max, kYamlLimits.bytes_max);
  WEFT_ASSIGN_OR_RETURN(JsonValue value, parse_yaml(text, limits));
  return read_value(value, into, options);
}

Status read_yaml(std::string_view text, pb::Message& into, LineMap* lines) {
  ReadOptions options;
  options.lines = lines;
  return read_yaml(text, into, options);
}

Status set_path(pb::Message& into, std::string_view path, std::string_view yaml) {
  WEFT_ASSIGN_OR_RETURN(std::vector<Step> steps, split_path(path));
  std::unique_ptr<pb::Message> copy(into.New());
  copy->CopyFrom(into);
  WEFT_RETURN_IF_ERROR(Setter(steps, yaml).run(*copy));
  into.GetReflection()->Swap(&into, copy.get());
  return {};
}

}  // namespace weft
