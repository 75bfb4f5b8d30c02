#include "worker/models/bert_plan.h"

#include <algorithm>
#include <array>
#include <string>

#include "worker/models/plan_builder.h"

namespace weft::bert {
namespace {

class Planner : private PlanBuilder {
 public:
  Planner(const Dialect& dialect, const Config& config, int size, int index)
      : dialect_(dialect),
        config_(config),
        heads_(part_of(config.heads, size, index)),
        inner_(part_of(config.inner, size, index)),
        vocabulary_(part_of(config.vocabulary, size, index)) {}

  std::vector<ParameterInfo> plan() {
    const std::string embeddings = std::string(dialect_.name) + ".embeddings.";
    // The row of padding gets no gradient from look-ups.
    table(embeddings + "word_embeddings", config_.vocabulary, {0, {vocabulary_}},
          config_.pad_token_id ? LookedUp::kNever : LookedUp::kByToken);
    table(embeddings + "position_embeddings", config_.positions, {}, LookedUp::kNever);
    if (dialect_.token_types) {
      table(embeddings + "token_type_embeddings", config_.token_types, {}, LookedUp::kNever);
    }
    // The backward pass uses the norm, and of the embeddings nothing else: it goes with a block.
    next_unit();
    norm(embeddings + "LayerNorm");
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      if (layer > 0) next_unit();
      block(std::string(dialect_.blocks) + std::to_string(layer) + ".");
    }
    return take();
  }

 private:
  void block(const std::string& name) {
    const int64_t hidden = config_.hidden, inner = config_.inner;
    const BlockNames& names = dialect_.block;
    const Part features{heads_.start * config_.head_features,
                        heads_.length * config_.head_features};
    const auto named = [&](std::string_view part) { return name + std::string(part); };
    for (const std::string_view part : {names.query, names.key, names.value}) {
      linear(named(part), {hidden, hidden}, {0, {features}});
    }
    linear(named(names.attention_out), {hidden, hidden}, {1, {features}});
    norm(named(names.norm1));
    behind_attention();
    linear(named(names.inner), {inner, hidden}, {0, {inner_}});
    linear(named(names.outer), {hidden, inner}, {1, {inner_}});
    norm(named(names.norm2));
  }
  void table(const std::string& name, int64_t rows, Shard shard, LookedUp looked_up) {
    matrix(name + ".weight", {rows, config_.hidden}, std::move(shard), config_.initializer_range,
           looked_up);
  }
  // The bias of what is cut by its inputs is added once, behind the sum.
  void linear(const std::string& name, Shape shape, const Shard& shard) {
    matrix(name + ".weight", shape, shard, config_.initializer_range);
    vector(name + ".bias", {shape[0]}, shard.dim == 0 ? shard : Shard{}, Initializer::kZeros);
  }
  void norm(const std::string& name) {
    norm_vector(name + ".weight", config_.hidden, Initializer::kOnes);
    norm_vector(name + ".bias", config_.hidden, Initializer::kZeros);
  }

  const Dialect& dialect_;
  const Config& config_;
  const Part heads_, inner_, vocabulary_;
};

}  // namespace

std::vector<ParameterInfo> plan(const Dialect& dialect, const Config& config, int tensor_size,
                                int tensor_index) {
  return Planner(dialect, config, tensor_size, tensor_index).plan();
}

bool ignored_in_files(const Dialect& dialect, std::string_view tensor) {
  // Buffers that old versions stored, copies of the tied table and of its bias, heads of tasks that
  // are not there, and the pooler where no head has one.
  constexpr std::array kBeginnings{"cls.seq_relationship.", "cls.predictions.decoder.",
                                   "lm_head.decoder.", "vocab_projector.weight", "qa_outputs."};
  const auto begins = [&](const char* beginning) { return tensor.starts_with(beginning); };
  const std::string pooler = std::string(dialect.name) + ".pooler.dense.";
  return tensor.ends_with("embeddings.position_ids") || std::ranges::any_of(kBeginnings, begins) ||
         tensor.starts_with(pooler) || tensor.starts_with("pooler.dense.");
}

}  // namespace weft::bert
