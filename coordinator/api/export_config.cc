#include "coordinator/api/export.h"
#include "proto/json/job_rules.h"
#include "worker/models/model.h"

namespace weft::api {
namespace {

constexpr int64_t kByteEndOfText = 256;  // of the byte tokenizer

struct Model {
  const ModelFamily* family = nullptr;
  ModelConfigPtr config;
};

Result<Model> model_of(const proto::CheckpointManifest& manifest) {
  Model model{find_family(manifest.family()), nullptr};
  if (model.family == nullptr) {
    return fail(Status(Code::kCorruption, manifest.id() + ": unknown model family")
                    .with_value(manifest.family())
                    .with_rule("known: " + known_families()));
  }
  auto config = model.family->parse_config(struct_to_json(manifest.config()));
  if (!config) return fail(config.error().with_prefix(manifest.id() + ": "));
  model.config = std::move(*config);
  return model;
}

}  // namespace

Result<std::string> export_config(const proto::CheckpointManifest& manifest,
                                  const proto::TaskSpec* headed) {
  WEFT_ASSIGN_OR_RETURN(const Model model, model_of(manifest));
  ExportHead head;
  if (headed != nullptr && embeds(*headed)) {
    head.none = true;
  } else if (headed != nullptr) {
    head.labels = finds_answers(*headed) ? kSpanEnds : headed->labels();
    head.classes = *head_kind(task_type_name(*headed));
    for (const proto::TaskLabels& labels : manifest.label_names()) {
      if (labels.task() != headed->name()) continue;
      head.label_names.assign(labels.names().begin(), labels.names().end());
    }
  }
  if (manifest.tokenizer().path().empty() && model.config->vocabulary > kByteEndOfText) {
    head.end_of_text = kByteEndOfText;
  }
  return model.family->config_json(*model.config, head);
}

Result<std::vector<std::string>> export_head_layers(const proto::CheckpointManifest& manifest,
                                                    const proto::TaskSpec* classifier) {
  std::vector<std::string> names;
  if (classifier == nullptr) return names;
  WEFT_ASSIGN_OR_RETURN(const Model model, model_of(manifest));
  const HeadKind kind = *head_kind(task_type_name(*classifier));
  const auto head = model.family->head(*model.config, kind, classifier->labels());
  if (!head) return names;
  for (const HeadLayer& layer : head->layers) {
    // PEFT saves what is called a classifier as a whole, and then finds no layer in it by name.
    std::string name = layer.name.starts_with("classifier.") ? "classifier" : layer.name;
    if (names.empty() || names.back() != name) names.push_back(std::move(name));
  }
  return names;
}

Result<ExportedAdapter> export_adapter(const proto::CheckpointManifest& manifest) {
  ExportedAdapter exported;
  const ModelFamily* family = find_family(manifest.family());
  if (family == nullptr || !manifest.has_adapter()) return exported;
  const auto named = [&](const Status& status) {
    return fail(status.with_prefix(manifest.id() + ": "));
  };
  const auto config = family->parse_config(struct_to_json(manifest.config()));
  if (!config) return named(config.error());
  const auto adapter = find_adapter(manifest.adapter(), *family, **config);
  if (!adapter) return named(adapter.error());
  exported.adapter = *adapter;
  exported.layout = family->layout();
  const ModelConfigPtr adapted = family->with_adapter(**config, *adapter);
  exported.peft_targets = peft_targets(*family, *adapted);
  for (const ParameterInfo& info : family->plan(*adapted, 1, 0)) {
    if (info.adapts.empty()) continue;
    exported.parts[info.adapts].push_back(info.name);
    exported.peft_names[info.name] = family->name_in_memory(info.name);
  }
  return exported;
}

std::string export_tensor_name(const proto::CheckpointManifest& manifest, const std::string& name) {
  const ModelFamily* family = find_family(manifest.family());
  if (family == nullptr) return name;
  const std::vector<std::string> names = family->file_names(name);
  return names.empty() ? name : names.front();
}

}  // namespace weft::api
