// What the GPT-2 family computes (Radford et al. 2019): pre-norm blocks of causal attention and an
// MLP, with learned positions. Names and shapes are transformers' (matrices stored [in, out]).
#include <array>

#include "kernels/ops/ops.h"
#include "worker/models/families.h"
#include "worker/models/gpt2_config.h"
#include "worker/models/gpt2_plan.h"
#include "worker/models/transformer_trunk.h"

namespace weft {
namespace {

using gpt2::BlockParameter;
using gpt2::Config;
using ops::WeightLayout;

class Gpt2Trunk final : public TransformerTrunk {
 public:
  Gpt2Trunk(Rank& rank, std::shared_ptr<const Config> config, std::span<const ParameterInfo> plan)
      : TransformerTrunk(rank, config, plan, WeightLayout::kInOut, gpt2::kFirstBlock),
        config_(std::move(config)) {}

 private:
  Tensor embed(Context& cx, TransformerPass& pass) override {
    const parallel::TensorAxis& axis = pass.axis;
    const Tensor x = parallel::vocabulary_embedding(
        cx, axis, pass.batch.ids, parameter(gpt2::kTokenEmbedding), config_->vocabulary);
    const Tensor positions = parallel::own_numbers(cx, axis, pass.batch.positions);
    const Tensor table = parallel::replicated(cx, axis, parameter(gpt2::kPositionEmbedding));
    return between_dropout(cx, pass, ops::add(cx, x, ops::embedding(cx, positions, table)),
                           config_->embedding_dropout, kEmbeddingDropout, 0);
  }

  Tensor last_norm(Context& cx, const TransformerPass& pass, const Tensor& x) override {
    return layer_norm(cx, pass, x, last(0), last(1), config_->epsilon);
  }

  Tensor norm(Context& cx, const TransformerPass& pass, int64_t layer, BlockParameter which,
              const Tensor& x) const {
    return layer_norm(cx, pass, x, weight(layer, which), weight(layer, which + 1),
                      config_->epsilon);
  }

  Tensor attention(Context& cx, const TransformerPass& pass, int64_t layer,
                   const Tensor& input) override {
    const int64_t rows = pass.batch.ids.dim(0), tokens = pass.batch.own_tokens;
    const int64_t own = heads().queries.length, features = config_->head_features;
    Tensor x = norm(cx, pass, layer, gpt2::kNorm1Weight, input);
    x = column(cx, pass, layer, gpt2::kAttentionWeight, x, weight(layer, gpt2::kAttentionBias),
               std::nullopt, /*parts=*/3);
    const std::array<Tensor, 3> parts =
        query_key_value(cx, ops::reshape(cx, x, {rows, tokens, 3, own, features}));
    x = attend(cx, pass, layer, parts[0], parts[1], parts[2],
               {config_->score_scale(layer), config_->attention_dropout});
    return add_row(cx, pass, layer, gpt2::kAttentionOutWeight, x,
                   weight(layer, gpt2::kAttentionOutWeight + 1), input, config_->residual_dropout,
                   kAttentionDropout);
  }

  // Of x [B, T, 3, N, D], each [B, N, T, D]: views on a GPU, whose kernels read them where they
  // lie; on a CPU each contiguous.
  static std::array<Tensor, 3> query_key_value(Context& cx, Tensor x) {
    const int64_t rows = x.dim(0), tokens = x.dim(1), heads = x.dim(3), features = x.dim(4);
    const bool contiguous = cx.stream() == nullptr;
    if (contiguous) x = ops::contiguous(cx, ops::permute(cx, x, std::array{2, 0, 3, 1, 4}));
    const std::vector<Tensor> split =
        ops::split(cx, x, contiguous ? 0 : 2, std::array<int64_t, 3>{1, 1, 1});
    std::array<Tensor, 3> parts;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (contiguous) {
        parts[i] = ops::reshape(cx, split[i], {rows, heads, tokens, features});
      } else {
        parts[i] = ops::reshape(cx, split[i], {rows, tokens, heads, features});
        parts[i] = ops::permute(cx, parts[i], std::array{0, 2, 1, 3});
      }
    }
    return parts;
  }

  Tensor mlp(Context& cx, const TransformerPass& pass, int64_t layer,
             const Tensor& input) override {
    Tensor x = norm(cx, pass, layer, gpt2::kNorm2Weight, input);
    x = column(cx, pass, layer, gpt2::kMlpWeight, x, weight(layer, gpt2::kMlpBias),
               config_->activation);
    return add_row(cx, pass, layer, gpt2::kMlpOutWeight, x, weight(layer, gpt2::kMlpOutWeight + 1),
                   input, config_->residual_dropout, kMlpDropout);
  }

  const std::shared_ptr<const Config> config_;
};

class Gpt2Family final : public ModelFamily {
 public:
  std::string_view name() const override { return "gpt2"; }

  Result<ModelConfigPtr> parse_config(std::string_view json) const override {
    WEFT_ASSIGN_OR_RETURN(std::shared_ptr<const Config> config, gpt2::parse_config(json));
    return ModelConfigPtr(std::move(config));
  }

  ModelConfigPtr with_dropout(const ModelConfig& config, double rate) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->residual_dropout = copy->embedding_dropout = copy->attention_dropout = rate;
    return copy;
  }

  ModelConfigPtr with_adapter(const ModelConfig& config, const Adapter& adapter) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->adapter = adapter;
    return copy;
  }
  std::vector<std::string> default_targets() const override { return {"c_attn"}; }
  ops::WeightLayout layout() const override { return WeightLayout::kInOut; }

  ModelConfigPtr with_layers(const ModelConfig& config, int64_t layers) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->layers = layers;
    return copy;
  }

  std::vector<ParameterInfo> base_plan(const ModelConfig& config, int tensor_size, int tensor_index,
                                       int /*blocks*/) const override {
    return gpt2::plan(config_as<Config>(config), tensor_size, tensor_index);
  }

  Result<std::unique_ptr<Trunk>> make_trunk(Rank& rank, ModelConfigPtr config) const override {
    const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    return std::make_unique<Gpt2Trunk>(rank,
                                       std::make_shared<const Config>(config_as<Config>(*config)),
                                       plan(*config, tensor.size(), tensor.rank()));
  }

  std::optional<Head> head(const ModelConfig&, HeadKind kind, int64_t labels) const override {
    return decoder_head(kind, labels);
  }
  std::string_view prefix() const override { return "transformer."; }
  bool ignored_in_files(std::string_view tensor, const ModelConfig& config) const override {
    return gpt2::ignored_in_files(tensor, config_as<Config>(config));
  }
  std::string config_json(const ModelConfig& config, const ExportHead& head) const override {
    return gpt2::config_json(config_as<Config>(config), head);
  }
};

}  // namespace

const ModelFamily& gpt2_family() {
  static const Gpt2Family family;
  return family;
}

}  // namespace weft
