#include "coordinator/api/export.h"
#include "worker/models/model.h"

namespace weft::api {
namespace {
constexpr int64_t kByteEndOfText = 256;  // of the byte tokenizer
}  // namespace

Result<std::string> export_config(const proto::CheckpointManifest& manifest,
                                  const proto::TaskSpec* classifier) {
  const ModelFamily* family = find_family(manifest.family());
  if (family == nullptr) {
    return fail(Status(Code::kCorruption, manifest.id() + ": unknown model family")
                    .with_value(manifest.family())
                    .with_rule("known: " + known_families()));
  }
  const auto config = family->parse_config(struct_to_json(manifest.config()));
  if (!config) return fail(config.error().with_prefix(manifest.id() + ": "));
  ExportHead head;
  if (classifier != nullptr) {
    head.labels = classifier->labels();
    for (const proto::TaskLabels& labels : manifest.label_names()) {
      if (labels.task() != classifier->name()) continue;
      head.label_names.assign(labels.names().begin(), labels.names().end());
    }
  }
  if (manifest.tokenizer().path().empty() && (*config)->vocabulary > kByteEndOfText) {
    head.end_of_text = kByteEndOfText;
  }
  return family->config_json(**config, head);
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
  for (const ParameterInfo& info : family->plan(*family->with_adapter(**config, *adapter), 1, 0)) {
    if (info.adapts.empty()) continue;
    (maps_input(info) ? exported.a : exported.b)[info.adapts] = info.name;
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
