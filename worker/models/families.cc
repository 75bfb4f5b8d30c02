// The table of model families, and the configuration in its two spellings.
#include <google/protobuf/struct.pb.h>

#include <nlohmann/json.hpp>

#include "proto/json/message_json.h"
#include "proto/json/parse.h"
#include "worker/models/families.h"
#include "worker/models/model.h"

namespace weft {
namespace {

// A new family is one row here and its files.
std::vector<const ModelFamily*> families() {
  std::vector<const ModelFamily*> all{&gpt2_family()};
  all.insert(all.end(), llama_families().begin(), llama_families().end());
  all.insert(all.end(), bert_families().begin(), bert_families().end());
  all.push_back(&vit_family());
  all.push_back(&t5_family());
  all.push_back(&xlnet_family());
  all.push_back(&whisper_family());
  return all;
}

}  // namespace

std::vector<ParameterInfo> ModelFamily::plan(const ModelConfig& config, int tensor_size,
                                             int tensor_index, int blocks) const {
  std::vector<ParameterInfo> plan = base_plan(config, tensor_size, tensor_index, blocks);
  return config.adapter.rank > 0 ? adapted_plan(std::move(plan), config, layout()) : plan;
}

std::vector<std::string> ModelFamily::file_names(std::string_view parameter) const {
  std::vector<std::string> names{std::string(parameter)};
  if (parameter.starts_with(prefix())) names.emplace_back(parameter.substr(prefix().size()));
  // Norms' parameters as TensorFlow's models called them, which the first published files kept.
  for (const auto& [now, once] : {std::pair("LayerNorm.weight", "LayerNorm.gamma"),
                                  std::pair("LayerNorm.bias", "LayerNorm.beta")}) {
    if (!parameter.ends_with(now)) continue;
    for (size_t i = 0, count = names.size(); i < count; ++i) {
      names.push_back(names[i].substr(0, names[i].size() - std::string_view(now).size()) + once);
    }
  }
  return names;
}

const ModelFamily* find_family(std::string_view name) {
  for (const ModelFamily* family : families()) {
    if (family->name() == name) return family;
  }
  return nullptr;
}

const ModelFamily& family_of(const ModelConfig& config) {
  const ModelFamily* family = find_family(config.family);
  WEFT_CHECK(family != nullptr, "a configuration of {}", config.family);
  return *family;
}

std::string known_families() {
  std::string names;
  for (const ModelFamily* family : families()) {
    names += (names.empty() ? "" : ", ") + std::string(family->name());
  }
  return names;
}

Result<std::string> family_of_config(std::string_view json) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json object, parse_strict(json));
  if (!object.is_object() || !object.contains("model_type") || !object["model_type"].is_string()) {
    return fail(Status::invalid("model_type", "absent", "must be named by config.json"));
  }
  const auto name = object["model_type"].get<std::string>();
  if (find_family(name) == nullptr) {
    return fail(Status::invalid("model_type", name, "must be one of " + known_families()));
  }
  return name;
}

std::string struct_to_json(const google::protobuf::Struct& config) { return write_json(config); }

Result<google::protobuf::Struct> json_to_struct(std::string_view json) {
  google::protobuf::Struct config;
  WEFT_RETURN_IF_ERROR(read_json(json, config));
  return config;
}

}  // namespace weft
