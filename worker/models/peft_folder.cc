// adapter_config.json, with the keys of PEFT's LoraConfig.
#include <nlohmann/json.hpp>

#include "proto/json/parse.h"
#include "worker/models/adapter.h"
#include "worker/models/config_reader.h"

namespace weft {
namespace {

constexpr int64_t kRankMax = 65536;
constexpr double kAlphaBelow = 1e9;

// Whether the key is there to say that something is not used.
bool says_nothing(const nlohmann::json& value) {
  return value.is_null() || value == false || (value.is_structured() && value.empty());
}

// null is absent.
std::string text_or(ConfigReader& reader, const nlohmann::json& json, const char* name,
                    const std::string& absent) {
  const auto found = json.find(name);
  return found != json.end() && found->is_null() ? absent : reader.text(name, absent);
}

// Whether how its weights were drawn left the base model's as they were.
bool leaves_weights_alone(const nlohmann::json& json) {
  const auto found = json.find("init_lora_weights");
  return found == json.end() || found->is_null() || found->is_boolean() || *found == "gaussian";
}

}  // namespace

std::string peft_config_json(const PeftFolder& folder, ops::WeightLayout layout) {
  const Adapter& adapter = folder.adapter;
  nlohmann::json json = {
      {"base_model_name_or_path", folder.base_model},
      {"bias", "none"},
      {"fan_in_fan_out", layout == ops::WeightLayout::kInOut},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"lora_alpha", adapter.alpha},
      {"lora_dropout", adapter.dropout},
      {"modules_to_save", nullptr},
      {"peft_type", "LORA"},
      {"r", adapter.rank},
      {"target_modules", adapter.targets},
      {"use_dora", adapter.dora},
      {"use_rslora", adapter.rslora},
  };
  json["task_type"] =
      folder.task_type.empty() ? nlohmann::json(nullptr) : nlohmann::json(folder.task_type);
  if (!folder.head_layers.empty()) json["modules_to_save"] = folder.head_layers;
  return json.dump(2) + "\n";
}

Result<PeftFolder> parse_peft_config(std::string_view text) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json json, parse_strict(text));
  if (!json.is_object()) {
    return fail(Status::invalid("adapter_config.json", shown(json), "must be an object"));
  }
  ConfigReader reader(json, "low-rank adapter");
  PeftFolder folder;
  Adapter& adapter = folder.adapter;
  adapter.rank = reader.integer({"r"}, 8, 1, kRankMax);
  adapter.alpha = reader.number("lora_alpha", 8, 0, kAlphaBelow);
  adapter.dropout = reader.number("lora_dropout", 0, 0, 1);
  adapter.rslora = reader.flag("use_rslora", false);
  adapter.dora = reader.flag("use_dora", false);
  folder.base_model = text_or(reader, json, "base_model_name_or_path", "");
  reader.only("peft_type", "LORA", "other adapters are not computed");
  reader.only("bias", "none", "biases are frozen");
  if (!leaves_weights_alone(json)) {
    reader.refuse(
        "init_lora_weights",
        "must be true, false or gaussian: the others change the weights of the base model");
  }
  folder.task_type = text_or(reader, json, "task_type", "CAUSAL_LM");
  if (const nlohmann::json* targets = reader.array("target_modules"); targets != nullptr) {
    for (const nlohmann::json& target : *targets) {
      if (target.is_string()) {
        adapter.targets.push_back(target.get<std::string>());
      } else {
        reader.refuse("target_modules", "must be names");
      }
    }
  }
  // How its weights came about, the class that PEFT was called with where there is no task_type,
  // and what is Megatron's or of other methods' sizes.
  reader.accept({"auto_mapping", "fan_in_fan_out", "inference_mode", "init_lora_weights",
                 "megatron_core", "modules_to_save", "peft_version", "qalora_group_size",
                 "revision"});
  for (const auto& [key, value] : json.items()) {
    if (says_nothing(value)) reader.accept({key.c_str()});
  }
  WEFT_RETURN_IF_ERROR(reader.finish());
  return folder;
}

}  // namespace weft
