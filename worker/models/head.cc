#include "worker/models/head.h"

#include "worker/models/model.h"

namespace weft {
namespace {

constexpr int64_t kHeadUnit = -1;

ParameterInfo vector(std::string name, int64_t extent, Initializer initializer) {
  return {
      .name = std::move(name), .shape = {extent}, .initializer = initializer, .unit = kHeadUnit};
}

}  // namespace

std::optional<HeadKind> head_kind(std::string_view task_type) {
  if (task_type == "sequence_classification") return HeadKind::kSequence;
  if (task_type == "token_classification") return HeadKind::kToken;
  if (task_type == "multiple_choice") return HeadKind::kChoice;
  if (task_type == "question_answering") return HeadKind::kSpan;
  if (task_type == "image_classification") return HeadKind::kImage;
  if (task_type == "masked_lm") return HeadKind::kMasked;
  if (task_type == "permutation_lm") return HeadKind::kPermuted;
  return std::nullopt;
}

std::optional<Head> decoder_head(HeadKind kind, int64_t labels) {
  if (kind != HeadKind::kSequence) return std::nullopt;
  return Head{.pooled = PooledToken::kLast,
              .layers = {{.name = "score", .out = labels, .bias = false}}};
}

std::vector<ParameterInfo> head_plan(const Head& head, const ModelConfig& config,
                                     const std::string& task, int tensor_size, int tensor_index) {
  std::vector<ParameterInfo> plan;
  int64_t in = config.hidden;
  const std::string prefix = task.empty() ? "" : task + ".";
  for (const HeadLayer& layer : head.layers) {
    plan.push_back({.name = prefix + layer.name + ".weight",
                    .shape = {layer.out, in},
                    .initializer = Initializer::kNormal,
                    .deviation = config.initializer_range,
                    .decay = true,
                    .unit = kHeadUnit});
    if (layer.bias) {
      plan.push_back(vector(prefix + layer.name + ".bias", layer.out, Initializer::kZeros));
    }
    if (!layer.norm.empty()) {
      plan.push_back(vector(prefix + layer.norm + ".weight", layer.out, Initializer::kOnes));
      plan.push_back(vector(prefix + layer.norm + ".bias", layer.out, Initializer::kZeros));
      plan[plan.size() - 2].keep_fp32 = plan.back().keep_fp32 = true;
    }
    in = layer.out;
  }
  if (!head.vocabulary_bias.empty()) {
    plan.push_back(vector(prefix + head.vocabulary_bias, config.vocabulary, Initializer::kZeros));
    plan.back().shard = {0, {part_of(config.vocabulary, tensor_size, tensor_index)}};
  }
  return plan;
}

bool gives_classes(const Head& head, const std::string& file_name) {
  if (head.layers.empty() || !head.vocabulary_bias.empty()) return false;
  return file_name.starts_with(head.layers.back().name + ".");
}

}  // namespace weft
