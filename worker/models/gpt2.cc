// What the GPT-2 family computes (Radford et al. 2019): pre-norm blocks of causal attention and an
// MLP, with learned positions. Names and shapes are transformers' (matrices stored [in, out]).
#include <array>

#include "kernels/ops/ops.h"
#include "worker/models/decoder.h"
#include "worker/models/families.h"
#include "worker/models/gpt2_config.h"
#include "worker/models/gpt2_plan.h"

namespace weft {
namespace {

using gpt2::BlockParameter;
using gpt2::Config;
using ops::WeightLayout;

class Gpt2Trunk final : public DecoderTrunk {
 public:
  Gpt2Trunk(Rank& rank, std::shared_ptr<const Config> config)
      : DecoderTrunk(rank, config, own_plan(rank, *config), gpt2::kFirstBlock,
                     gpt2::kParametersPerBlock),
        config_(std::move(config)) {}

 private:
  static std::vector<ParameterInfo> own_plan(const Rank& rank, const Config& config) {
    const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    return gpt2::plan(config, tensor.size(), tensor.rank());
  }

  Tensor embed(Context& cx, DecoderPass& pass) override {
    const parallel::TensorAxis& axis = pass.axis;
    const Tensor x = parallel::vocabulary_embedding(
        cx, axis, pass.batch.ids, parameter(gpt2::kTokenEmbedding), config_->vocabulary);
    const Tensor positions = parallel::own_numbers(cx, axis, pass.batch.positions);
    const Tensor table = parallel::replicated(cx, axis, parameter(gpt2::kPositionEmbedding));
    return dropout(cx, pass, ops::add(cx, x, ops::embedding(cx, positions, table)),
                   config_->embedding_dropout, kEmbeddingDropout, 0);
  }

  Tensor last_norm(Context& cx, const DecoderPass& pass, const Tensor& x) override {
    return layer_norm(cx, pass.axis, x, last(0), last(1));
  }

  Tensor layer_norm(Context& cx, const parallel::TensorAxis& axis, const Tensor& x,
                    const Tensor& gamma, const Tensor& beta) const {
    return ops::layer_norm(cx, x, parallel::replicated(cx, axis, gamma),
                           parallel::replicated(cx, axis, beta), config_->epsilon);
  }

  // x between blocks, [B, Tb, H].
  Tensor dropout(Context& cx, const DecoderPass& pass, const Tensor& x, double rate, DropoutUse use,
                 int64_t layer) const {
    const TokenBatch& batch = pass.batch;
    if (!batch.training || rate == 0) return x;
    const parallel::TensorAxis& axis = pass.axis;
    const RandomKey key = batch.random.derive(use, static_cast<uint64_t>(layer));
    const int index = rank().mesh.index(Axis::kSequence);
    if (axis.blocks > 0) {
      const int64_t first = batch.first_row * batch.tokens + batch.layout->runs(index)[0].start;
      return ops::dropout(cx, x, rate, key,
                          {{1, batch.rows * batch.tokens, config_->hidden},
                           {0, first + axis.token_part().start, 0}});
    }
    std::vector<Tensor> parts;
    int64_t at = 0;
    for (const Part& run : batch.layout->runs(index, axis.token_part())) {
      const ops::GlobalIndex where{{batch.rows, batch.tokens, config_->hidden},
                                   {batch.first_row, run.start, 0}};
      const Tensor part = ops::slice(cx, x, 1, at, run.length);
      parts.push_back(ops::dropout(cx, part, rate, key, where));
      at += run.length;
    }
    if (parts.empty()) return x;
    return parts.size() == 1 ? parts[0] : ops::concat(cx, parts, 1);
  }

  Tensor attention(Context& cx, const DecoderPass& pass, int64_t layer,
                   const Tensor& input) override {
    const int64_t rows = pass.batch.ids.dim(0), tokens = pass.batch.own_tokens;
    const int64_t own = heads().queries.length, features = config_->head_features;
    Tensor x = layer_norm(cx, pass.axis, input, weight(layer, gpt2::kNorm1Weight),
                          weight(layer, gpt2::kNorm1Bias));
    x = parallel::column_linear(cx, pass.axis, x, weight(layer, gpt2::kAttentionWeight),
                                weight(layer, gpt2::kAttentionBias), WeightLayout::kInOut,
                                std::nullopt, /*parts=*/3);
    const std::array<Tensor, 3> parts =
        query_key_value(cx, ops::reshape(cx, x, {rows, tokens, 3, own, features}));
    x = attend(cx, pass, layer, parts[0], parts[1], parts[2],
               {config_->score_scale(layer), config_->attention_dropout});
    return joined(cx, pass, layer, input, x, gpt2::kAttentionOutWeight, kAttentionDropout);
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

  // input + dropout(x weight + bias); the bias follows its weight.
  Tensor joined(Context& cx, const DecoderPass& pass, int64_t layer, const Tensor& input,
                const Tensor& x, BlockParameter which, DropoutUse use) {
    const Tensor& matrix = weight(layer, which);
    const Tensor& bias = weight(layer, which + 1);
    const bool drops = pass.batch.training && config_->residual_dropout > 0;
    const Tensor y = parallel::row_linear(cx, pass.axis, x, matrix, bias, WeightLayout::kInOut,
                                          drops ? Tensor() : input);
    if (!drops) return y;
    return ops::add(cx, input, dropout(cx, pass, y, config_->residual_dropout, use, layer));
  }

  Tensor mlp(Context& cx, const DecoderPass& pass, int64_t layer, const Tensor& input) override {
    Tensor x = layer_norm(cx, pass.axis, input, weight(layer, gpt2::kNorm2Weight),
                          weight(layer, gpt2::kNorm2Bias));
    x = parallel::column_linear(cx, pass.axis, x, weight(layer, gpt2::kMlpWeight),
                                weight(layer, gpt2::kMlpBias), WeightLayout::kInOut,
                                config_->activation);
    return joined(cx, pass, layer, input, x, gpt2::kMlpOutWeight, kMlpDropout);
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

  ModelConfigPtr with_layers(const ModelConfig& config, int64_t layers) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->layers = layers;
    return copy;
  }

  std::vector<ParameterInfo> plan(const ModelConfig& config, int tensor_size,
                                  int tensor_index) const override {
    return gpt2::plan(config_as<Config>(config), tensor_size, tensor_index);
  }

  Result<std::unique_ptr<Trunk>> make_trunk(Rank& rank, ModelConfigPtr config) const override {
    return std::make_unique<Gpt2Trunk>(rank,
                                       std::make_shared<const Config>(config_as<Config>(*config)));
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
