#include "worker/models/gpt2_plan.h"

#include <cmath>

#include "worker/models/plan_builder.h"

namespace weft::gpt2 {
namespace {

class Planner : private PlanBuilder {
 public:
  Planner(const Config& config, int size, int index)
      : config_(config),
        heads_(part_of(config.heads, size, index)),
        inner_(part_of(config.inner, size, index)),
        vocabulary_(part_of(config.vocabulary, size, index)),
        alone_(size == 1) {
    // Residual projections start smaller, by the root of how many are added up.
    residual_ = config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.layers));
  }

  std::vector<ParameterInfo> plan() {
    const double deviation = config_.initializer_range;
    const int64_t hidden = config_.hidden;
    matrix("transformer.wte.weight", {config_.vocabulary, hidden}, vocabulary_rows(), deviation,
           LookedUp::kByToken);
    // Ranks of a tensor axis have terms of each row.
    matrix("transformer.wpe.weight", {config_.positions, hidden}, {}, deviation,
           alone_ ? LookedUp::kByPosition : LookedUp::kNever);
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      next_unit();
      block("transformer.h." + std::to_string(layer) + ".");
    }
    next_unit();
    norm("transformer.ln_f");
    if (!config_.tied) {
      matrix("lm_head.weight", {config_.vocabulary, hidden}, vocabulary_rows(), deviation);
    }
    return take();
  }

 private:
  void block(const std::string& name) {
    const int64_t hidden = config_.hidden;
    const double deviation = config_.initializer_range;
    norm(name + "ln_1");
    matrix(name + "attn.c_attn.weight", {hidden, 3 * hidden}, query_key_value(1), deviation);
    vector(name + "attn.c_attn.bias", {3 * hidden}, query_key_value(0), Initializer::kZeros);
    matrix(name + "attn.c_proj.weight", {hidden, hidden}, {0, {head_features(0)}}, residual_);
    vector(name + "attn.c_proj.bias", {hidden}, {}, Initializer::kZeros);
    behind_attention();
    norm(name + "ln_2");
    matrix(name + "mlp.c_fc.weight", {hidden, config_.inner}, {1, {inner_}}, deviation);
    vector(name + "mlp.c_fc.bias", {config_.inner}, {0, {inner_}}, Initializer::kZeros);
    matrix(name + "mlp.c_proj.weight", {config_.inner, hidden}, {0, {inner_}}, residual_);
    vector(name + "mlp.c_proj.bias", {hidden}, {}, Initializer::kZeros);
  }
  void norm(const std::string& name) {
    norm_vector(name + ".weight", config_.hidden, Initializer::kOnes);
    norm_vector(name + ".bias", config_.hidden, Initializer::kZeros);
  }

  Shard vocabulary_rows() const { return {0, {vocabulary_}}; }
  // The features of this rank's heads, in the query (0), key (1) or value (2) third.
  Part head_features(int64_t third) const {
    const int64_t features = config_.head_features;
    return {third * config_.hidden + heads_.start * features, heads_.length * features};
  }
  Shard query_key_value(int dim) const {
    return {dim, {head_features(0), head_features(1), head_features(2)}};
  }

  const Config& config_;
  const Part heads_, inner_, vocabulary_;
  const bool alone_;  // on the tensor axis
  double residual_ = 0;
};

}  // namespace

std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index) {
  return Planner(config, tensor_size, tensor_index).plan();
}

bool ignored_in_files(std::string_view tensor, const Config& config) {
  // Masks that old versions stored, and the copy of a tied head.
  return tensor.ends_with(".attn.bias") || tensor.ends_with(".attn.masked_bias") ||
         (config.tied && tensor == "lm_head.weight");
}

}  // namespace weft::gpt2
