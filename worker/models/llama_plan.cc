#include "worker/models/llama_plan.h"

#include <algorithm>

#include "worker/models/plan_builder.h"
#include "worker/parallel/head_parts.h"

namespace weft::llama {
namespace {

class Planner : private PlanBuilder {
 public:
  Planner(const Config& config, int size, int index, int blocks)
      : config_(config),
        heads_(blocks > 0
                   ? parallel::blocked_head_parts(config.heads, config.key_heads, size, index)
                   : parallel::head_parts(config.heads, config.key_heads, size, index)),
        inner_(part_of(config.inner, size, index)),
        vocabulary_(part_of(config.vocabulary, size, index)),
        of_keys_{0, {features(heads_.keys)}} {
    if (blocks > 0) {
      const Part counted = parallel::counted_key_heads(config.key_heads, size, index);
      of_keys_.repeated = (counted.start - heads_.keys.start) * config.head_features;
      const bool even = parallel::cuts_keys_evenly(config.heads, config.key_heads, blocks);
      of_keys_.cell = even ? 0 : config.head_features;
      return;
    }
    if (heads_.keys.length == 0) return;
    const auto all = parallel::all_head_parts(config.heads, config.key_heads, size);
    const auto same = [&](const parallel::HeadParts& parts) { return parts.keys == heads_.keys; };
    of_keys_.copies = static_cast<int>(std::ranges::count_if(all, same));
    of_keys_.copy = index - static_cast<int>(std::ranges::find_if(all, same) - all.begin());
    if (of_keys_.copy > 0) of_keys_.repeated = of_keys_.ranges.front().length;
  }

  std::vector<ParameterInfo> plan() {
    const Shape table{config_.vocabulary, config_.hidden};
    // The row of padding gets no gradient from look-ups.
    linear("model.embed_tokens", table, {0, {vocabulary_}},
           config_.pad_token_id ? LookedUp::kNever : LookedUp::kByToken);
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      next_unit();
      block("model.layers." + std::to_string(layer) + ".");
    }
    next_unit();
    norm("model.norm");
    if (!config_.tied) linear("lm_head", table, {0, {vocabulary_}});
    return take();
  }

 private:
  void block(const std::string& name) {
    const int64_t hidden = config_.hidden, inner = config_.inner, width = config_.head_features;
    const int64_t queries = config_.heads * width, keys = config_.key_heads * width;
    norm(name + "input_layernorm");
    const Shard of_queries{0, {features(heads_.queries)}};
    input_projection(name + "self_attn.q_proj", queries, of_queries);
    input_projection(name + "self_attn.k_proj", keys, of_keys_);
    input_projection(name + "self_attn.v_proj", keys, of_keys_);
    if (config_.head_norms) {
      norm(name + "self_attn.q_norm", width);
      norm(name + "self_attn.k_norm", width);
    }
    linear(name + "self_attn.o_proj", {hidden, queries}, {1, {features(heads_.queries)}});
    if (config_.output_bias) bias(name + "self_attn.o_proj", hidden, {});
    behind_attention();
    norm(name + "post_attention_layernorm");
    linear(name + "mlp.gate_proj", {inner, hidden}, {0, {inner_}});
    linear(name + "mlp.up_proj", {inner, hidden}, {0, {inner_}});
    linear(name + "mlp.down_proj", {hidden, inner}, {1, {inner_}});
  }
  void input_projection(const std::string& name, int64_t features, const Shard& shard) {
    linear(name, {features, config_.hidden}, shard);
    if (config_.input_biases) bias(name, features, shard);
  }
  void norm(const std::string& name) { norm(name, config_.hidden); }
  void norm(const std::string& name, int64_t features) {
    norm_vector(name + ".weight", features, Initializer::kOnes);
  }
  void bias(const std::string& name, int64_t features, const Shard& shard) {
    vector(name + ".bias", {features}, shard, Initializer::kZeros);
  }
  void linear(const std::string& name, Shape shape, Shard shard,
              LookedUp looked_up = LookedUp::kNever) {
    matrix(name + ".weight", shape, std::move(shard), config_.initializer_range, looked_up);
  }
  Part features(Part heads) const {
    return {heads.start * config_.head_features, heads.length * config_.head_features};
  }

  const Config& config_;
  const parallel::HeadParts heads_;
  const Part inner_, vocabulary_;
  Shard of_keys_;
};

}  // namespace

BlockPlaces::BlockPlaces(const Config& config) {
  const size_t input = config.input_biases ? 2 : 1;
  norm1 = 0;
  query = 1;
  key = query + input;
  value = key + input;
  query_norm = value + input;
  key_norm = query_norm + 1;
  attention_out = query_norm + (config.head_norms ? 2 : 0);
  norm2 = attention_out + (config.output_bias ? 2 : 1);
  gate = norm2 + 1;
  up = gate + 1;
  down = up + 1;
}

std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index,
                                int blocks) {
  return Planner(config, tensor_size, tensor_index, blocks).plan();
}

bool ignored_in_files(std::string_view tensor, const Config& config) {
  // Frequencies that old versions stored, and the copy of a tied head.
  return tensor.ends_with(".rotary_emb.inv_freq") || (config.tied && tensor == "lm_head.weight");
}

}  // namespace weft::llama
