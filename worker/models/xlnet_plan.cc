#include "worker/models/xlnet_plan.h"

#include <algorithm>
#include <array>
#include <string>

#include "worker/models/plan_builder.h"

namespace weft::xlnet {
namespace {

class Planner : private PlanBuilder {
 public:
  Planner(const Config& config, int size, int index)
      : config_(config),
        heads_(part_of(config.heads, size, index)),
        inner_(part_of(config.inner, size, index)),
        vocabulary_(part_of(config.vocabulary, size, index)) {}

  std::vector<ParameterInfo> plan() {
    matrix("transformer.word_embedding.weight", {config_.vocabulary, config_.hidden},
           {0, {vocabulary_}}, config_.initializer_range, LookedUp::kByToken);
    drawn("transformer.mask_emb", {1, 1, config_.hidden}, {});
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      next_unit();
      const std::string name = "transformer.layer." + std::to_string(layer) + ".";
      attention(name + "rel_attn.");
      behind_attention();
      mlp(name + "ff.");
    }
    std::vector<ParameterInfo> all = take();
    ParameterInfo& mask = all[kMaskEmbedding];
    mask.reached = mask.decay = config_.predicts;  // what no task reads nothing changes
    return all;
  }

 private:
  void attention(const std::string& name) {
    const int64_t heads = config_.heads, width = config_.head_features;
    for (const char* map : {"q", "k", "v", "r"}) {
      drawn(name + map, {config_.hidden, heads, width}, {1, {heads_}});
    }
    for (const char* vector : {"r_r_bias", "r_s_bias", "r_w_bias"}) {
      drawn(name + vector, {heads, width}, {0, {heads_}});
    }
    drawn(name + "seg_embed", {2, heads, width}, {1, {heads_}});
    drawn(name + "o", {config_.hidden, heads, width}, {1, {heads_}});
    norm(name + "layer_norm");
  }
  // The bias of what is cut by its inputs is added once, behind the sum.
  void mlp(const std::string& name) {
    drawn(name + "layer_1.weight", {config_.inner, config_.hidden}, {0, {inner_}});
    vector(name + "layer_1.bias", {config_.inner}, {0, {inner_}}, Initializer::kZeros);
    drawn(name + "layer_2.weight", {config_.hidden, config_.inner}, {1, {inner_}});
    vector(name + "layer_2.bias", {config_.hidden}, {}, Initializer::kZeros);
    norm(name + "layer_norm");
  }
  void drawn(std::string name, Shape shape, Shard shard) {
    matrix(std::move(name), shape, std::move(shard), config_.initializer_range);
  }
  void norm(const std::string& name) {
    norm_vector(name + ".weight", config_.hidden, Initializer::kOnes);
    norm_vector(name + ".bias", config_.hidden, Initializer::kZeros);
  }

  const Config& config_;
  const Part heads_, inner_, vocabulary_;
};

}  // namespace

std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index) {
  return Planner(config, tensor_size, tensor_index).plan();
}

bool ignored_in_files(std::string_view tensor) {
  // Heads of other tasks, and a copy of the table of tokens.
  constexpr std::array kBeginnings{"lm_loss.", "qa_outputs.", "start_logits.", "end_logits.",
                                   "answer_class."};
  return std::ranges::any_of(kBeginnings,
                             [&](const char* beginning) { return tensor.starts_with(beginning); });
}

}  // namespace weft::xlnet
