#include "worker/models/whisper_plan.h"

#include "worker/models/plan_builder.h"

namespace weft::whisper {
namespace {

class Planner : private PlanBuilder {
 public:
  Planner(const Config& config, int size, int index)
      : config_(config),
        heads_(part_of(config.heads, size, index)),
        inner_(part_of(config.inner, size, index)),
        vocabulary_(part_of(config.vocabulary, size, index)) {}

  std::vector<ParameterInfo> plan() {
    const int64_t hidden = config_.hidden, bins = config_.audio.mel_bins;
    const Shape table{config_.vocabulary, hidden};
    weight("model.decoder.embed_tokens", table, {0, {vocabulary_}});
    weight("model.decoder.embed_positions", {config_.target_positions, hidden}, {});
    sinusoids("model.encoder.embed_positions.weight", config_.audio.tokens, hidden);
    next_unit();
    linear("model.encoder.conv1", {hidden, bins, kTaps}, {});
    linear("model.encoder.conv2", {hidden, hidden, kTaps}, {});
    for (int64_t layer = 0; layer < config_.encoder_layers; ++layer) {
      if (layer > 0) next_unit();
      const std::string name = "model.encoder.layers." + std::to_string(layer) + ".";
      attention(name + "self_attn");
      mlp(name);
    }
    next_unit();
    norm("model.encoder.layer_norm");
    for (int64_t layer = 0; layer < config_.decoder_layers(); ++layer) {
      next_unit();
      const std::string name = "model.decoder.layers." + std::to_string(layer) + ".";
      attention(name + "self_attn");
      attention(name + "encoder_attn");
      mlp(name);
    }
    next_unit();
    norm("model.decoder.layer_norm");
    if (!config_.tied) weight("proj_out", table, {0, {vocabulary_}});
    return take();
  }

 private:
  static constexpr int64_t kTaps = 3;

  void attention(const std::string& name) {
    const int64_t hidden = config_.hidden, width = config_.head_features;
    const Part own{heads_.start * width, heads_.length * width};
    norm(name + "_layer_norm");
    linear(name + ".q_proj", {hidden, hidden}, {0, {own}});
    weight(name + ".k_proj", {hidden, hidden}, {0, {own}});
    linear(name + ".v_proj", {hidden, hidden}, {0, {own}});
    linear(name + ".out_proj", {hidden, hidden}, {1, {own}});
  }
  void mlp(const std::string& name) {
    behind_attention();
    norm(name + "final_layer_norm");
    linear(name + "fc1", {config_.inner, config_.hidden}, {0, {inner_}});
    linear(name + "fc2", {config_.hidden, config_.inner}, {1, {inner_}});
  }
  void weight(const std::string& name, Shape shape, Shard shard) {
    matrix(name + ".weight", shape, std::move(shard), config_.initializer_range);
  }
  // The bias of what is cut by its inputs is added once, behind the sum.
  void linear(const std::string& name, Shape shape, const Shard& shard) {
    weight(name, shape, shard);
    vector(name + ".bias", {shape[0]}, shard.dim == 0 ? shard : Shard{}, Initializer::kZeros);
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

bool ignored_in_files(std::string_view tensor, const Config& config) {
  return config.tied && tensor == kTokenHead;
}

}  // namespace weft::whisper
