#include "worker/models/vit_plan.h"

#include <algorithm>
#include <array>
#include <utility>

#include "worker/models/plan_builder.h"

namespace weft::vit {
namespace {

class Planner : private PlanBuilder {
 public:
  Planner(const Config& config, int size, int index)
      : config_(config),
        heads_(part_of(config.heads, size, index)),
        inner_(part_of(config.inner, size, index)) {}

  std::vector<ParameterInfo> plan() {
    const ModelConfig::ImageShape& image = config_.image;
    const int64_t hidden = config_.hidden;
    matrix("vit.embeddings.cls_token", {1, 1, hidden}, {}, config_.initializer_range);
    matrix("vit.embeddings.position_embeddings", {1, config_.positions, hidden}, {},
           config_.initializer_range);
    linear("vit.embeddings.patch_embeddings.projection",
           {hidden, image.channels, image.patch, image.patch}, {});
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      next_unit();
      block("vit.encoder.layer." + std::to_string(layer) + ".");
    }
    next_unit();
    norm("vit.layernorm");
    return take();
  }

 private:
  void block(const std::string& name) {
    const int64_t hidden = config_.hidden, inner = config_.inner;
    const Part features{heads_.start * config_.head_features,
                        heads_.length * config_.head_features};
    norm(name + "layernorm_before");
    for (const char* part : {"query", "key", "value"}) {
      linear(name + "attention.attention." + part, {hidden, hidden}, {0, {features}},
             config_.input_biases);
    }
    linear(name + "attention.output.dense", {hidden, hidden}, {1, {features}});
    behind_attention();
    norm(name + "layernorm_after");
    linear(name + "intermediate.dense", {inner, hidden}, {0, {inner_}});
    linear(name + "output.dense", {hidden, inner}, {1, {inner_}});
  }
  // The bias of what is cut by its inputs is added once, behind the sum.
  void linear(const std::string& name, Shape shape, const Shard& shard, bool biased = true) {
    matrix(name + ".weight", shape, shard, config_.initializer_range);
    if (!biased) return;
    vector(name + ".bias", {shape[0]}, shard.dim == 0 ? shard : Shard{}, Initializer::kZeros);
  }
  void norm(const std::string& name) {
    norm_vector(name + ".weight", config_.hidden, Initializer::kOnes);
    norm_vector(name + ".bias", config_.hidden, Initializer::kZeros);
  }

  const Config& config_;
  const Part heads_, inner_;
};

// Parts of names in transformers' files and in its models' memory.
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kRenamed{{
    {"encoder.layer.", "layers."},
    {"attention.attention.query", "attention.q_proj"},
    {"attention.attention.key", "attention.k_proj"},
    {"attention.attention.value", "attention.v_proj"},
    {"attention.output.dense", "attention.o_proj"},
    {"intermediate.dense", "mlp.fc1"},
    {"output.dense", "mlp.fc2"},
}};

}  // namespace

BlockPlaces::BlockPlaces(const Config& config) {
  const size_t input = config.input_biases ? 2 : 1;
  norm1 = 0;
  query = 2;
  key = query + input;
  value = key + input;
  attention_out = value + input;
  norm2 = attention_out + 2;
  inner = norm2 + 2;
  outer = inner + 2;
}

std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index) {
  return Planner(config, tensor_size, tensor_index).plan();
}

std::string name_in_memory(std::string name) {
  for (const auto& [in_file, in_memory] : kRenamed) {
    const size_t at = name.find(in_file);
    if (at != std::string::npos) name.replace(at, in_file.size(), in_memory);
  }
  return name;
}

bool ignored_in_files(std::string_view tensor) {
  // Of heads that are not there: the pooler of ViTModel, and what predicts masked patches.
  constexpr std::array kBeginnings{"vit.pooler.dense.", "pooler.dense.", "decoder."};
  const auto begins = [&](const char* beginning) { return tensor.starts_with(beginning); };
  return tensor.ends_with("embeddings.mask_token") || std::ranges::any_of(kBeginnings, begins);
}

}  // namespace weft::vit
