#include "worker/models/t5_plan.h"

#include <cmath>

#include "worker/models/plan_builder.h"

namespace weft::t5 {
namespace {

constexpr const char* kDistancesName = "block.0.layer.0.SelfAttention.relative_attention_bias";

class Planner : private PlanBuilder {
 public:
  Planner(const Config& config, int size, int index)
      : config_(config),
        heads_(part_of(config.heads, size, index)),
        inner_(part_of(config.inner, size, index)),
        vocabulary_(part_of(config.vocabulary, size, index)) {}

  std::vector<ParameterInfo> plan() {
    const Shape table{config_.vocabulary, config_.hidden};
    linear("shared", table, {0, {vocabulary_}}, 1);
    for (const char* stack : {"encoder.", "decoder."}) {
      linear(stack + std::string(kDistancesName), {config_.buckets, config_.heads}, {1, {heads_}},
             of_inputs(config_.hidden));
    }
    for (int64_t layer = 0; layer < config_.encoder_layers; ++layer) {
      next_unit();
      const std::string name = "encoder.block." + std::to_string(layer) + ".layer.";
      attention(name + "0.", "SelfAttention.");
      mlp(name + "1.");
    }
    next_unit();
    norm("encoder.final_layer_norm");
    for (int64_t layer = 0; layer < config_.decoder_layers(); ++layer) {
      next_unit();
      const std::string name = "decoder.block." + std::to_string(layer) + ".layer.";
      attention(name + "0.", "SelfAttention.");
      attention(name + "1.", "EncDecAttention.");
      mlp(name + "2.");
    }
    next_unit();
    norm("decoder.final_layer_norm");
    if (!config_.tied) linear("lm_head", table, {0, {vocabulary_}}, 1);
    return take();
  }

 private:
  void attention(const std::string& layer, const std::string& kind) {
    const int64_t hidden = config_.hidden, width = config_.head_features;
    const int64_t features = config_.heads * width;
    const Part own{heads_.start * width, heads_.length * width};
    norm(layer + "layer_norm");
    // Scores are not scaled: their queries begin so much smaller.
    linear(layer + kind + "q", {features, hidden}, {0, {own}}, of_inputs(hidden * width));
    linear(layer + kind + "k", {features, hidden}, {0, {own}}, of_inputs(hidden));
    linear(layer + kind + "v", {features, hidden}, {0, {own}}, of_inputs(hidden));
    linear(layer + kind + "o", {hidden, features}, {1, {own}}, of_inputs(features));
  }
  void mlp(const std::string& layer) {
    behind_attention();
    norm(layer + "layer_norm");
    const std::string name = layer + "DenseReluDense.";
    const Shape shape{config_.inner, config_.hidden};
    for (const char* first : {config_.gated ? "wi_0" : "wi", "wi_1"}) {
      linear(name + first, shape, {0, {inner_}}, of_inputs(config_.hidden));
      if (!config_.gated) break;
    }
    linear(name + "wo", {config_.hidden, config_.inner}, {1, {inner_}}, of_inputs(config_.inner));
  }
  void norm(const std::string& name) {
    constant_norm_vector(name + ".weight", config_.hidden, config_.initializer_factor);
  }
  void linear(const std::string& name, Shape shape, Shard shard, double deviation) {
    matrix(name + ".weight", shape, std::move(shard), config_.initializer_factor * deviation);
  }
  static double of_inputs(int64_t count) { return 1 / std::sqrt(static_cast<double>(count)); }

  const Config& config_;
  const Part heads_, inner_, vocabulary_;
};

}  // namespace

std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index) {
  return Planner(config, tensor_size, tensor_index).plan();
}

bool ignored_in_files(std::string_view tensor, const Config& config) {
  // Copies of the table of tokens, and a table of distances that the first published files have of
  // the attention to the source, which has no use for it.
  return tensor == "encoder.embed_tokens.weight" || tensor == "decoder.embed_tokens.weight" ||
         tensor == "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight" ||
         (config.tied && tensor == "lm_head.weight");
}

}  // namespace weft::t5
