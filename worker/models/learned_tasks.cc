#include "worker/models/learned_tasks.h"

#include <algorithm>

#include "proto/job.pb.h"
#include "proto/json/names.h"
#include "worker/models/head.h"
#include "worker/models/model.h"

namespace weft {

bool learns(const ModelConfig& config, std::string_view task_type) {
  constexpr int64_t kLabels = 2;  // no family asks how many there are
  const bool hears = task_type == "speech_recognition", sees = task_type == "image_classification";
  const bool writes = task_type == "seq2seq" || hears;
  if (config.encodes_and_decodes() || writes) {
    return config.encodes_and_decodes() && writes && (config.audio.mel_bins > 0) == hears;
  }
  if ((config.image.size > 0) != sees) return false;
  if (task_type == "causal_lm") return config.attention.causal;
  if (task_type == "embedding") return !config.attention.causal;
  const std::optional<HeadKind> kind = head_kind(task_type);
  return kind && family_of(config).head(config, *kind, kLabels);
}

std::vector<std::string> learned_tasks(const ModelConfig& config) {
  std::vector<std::string> types = enum_names(*proto::TaskType_descriptor());
  std::erase_if(types, [&](const std::string& type) { return !learns(config, type); });
  return types;
}

std::string learned_tasks_rule(const ModelConfig& config) {
  return "must be one that " + config.family + " learns: " + one_of(learned_tasks(config));
}

}  // namespace weft
