// What the Llama family computes (Touvron et al. 2023): pre-norm blocks of causal attention with
// rotary positions and grouped queries, and of a SwiGLU MLP, without biases.
#include <array>
#include <cmath>

#include "kernels/ops/elementwise.h"
#include "kernels/ops/norms.h"
#include "kernels/ops/ops.h"
#include "worker/models/decoder.h"
#include "worker/models/families.h"
#include "worker/models/llama_config.h"
#include "worker/models/llama_plan.h"

namespace weft {
namespace {

using llama::Config;
using ops::WeightLayout;

class LlamaTrunk final : public DecoderTrunk {
 public:
  LlamaTrunk(Rank& rank, std::shared_ptr<const Config> config)
      : DecoderTrunk(rank, config, own_plan(rank, *config), llama::kFirstBlock,
                     llama::kParametersPerBlock),
        config_(std::move(config)),
        frequencies_(Tensor::from<double>(*rank.allocator, {config_->head_features / 2},
                                          config_->frequencies())) {}

 private:
  static std::vector<ParameterInfo> own_plan(const Rank& rank, const Config& config) {
    const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    return llama::plan(config, tensor.size(), tensor.rank());
  }

  Tensor embed(Context& cx, DecoderPass& pass) override {
    const Tensor x = parallel::vocabulary_embedding(
        cx, pass.axis, pass.batch.ids, parameter(llama::kTokenEmbedding), config_->vocabulary,
        config_->pad_token_id.value_or(-1));
    const DType dtype = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
    pass.angles = ops::rotary_angles(cx, pass.batch.positions, frequencies_, dtype);
    return x;
  }

  Tensor last_norm(Context& cx, const DecoderPass& pass, const Tensor& x) override {
    return rms_norm(cx, pass, x, last(0));
  }

  Tensor rms_norm(Context& cx, const DecoderPass& pass, const Tensor& x,
                  const Tensor& gamma) const {
    return ops::rms_norm(cx, x, parallel::replicated(cx, pass.axis, gamma), config_->epsilon);
  }

  Tensor attention(Context& cx, const DecoderPass& pass, int64_t layer,
                   const Tensor& input) override {
    Tensor x = rms_norm(cx, pass, input, weight(layer, llama::kNorm1));
    std::vector<Tensor> heads = parallel::column_linears(
        cx, pass.axis, x,
        std::array{weight(layer, llama::kQuery), shared_by_heads(cx, weight(layer, llama::kKey)),
                   shared_by_heads(cx, weight(layer, llama::kValue))},
        WeightLayout::kOutIn);
    for (Tensor& each : heads) each = by_heads(cx, pass, std::move(each));
    const Tensor query = turned(cx, pass, heads[0]), key = turned(cx, pass, heads[1]);
    const double scale = 1 / std::sqrt(static_cast<double>(config_->head_features));
    x = attend(cx, pass, layer, query, key, heads[2], {scale, config_->attention_dropout});
    return parallel::row_linear(cx, pass.axis, x, weight(layer, llama::kAttentionOut), Tensor(),
                                WeightLayout::kOutIn, input);
  }

  // y as column_linears gives it -> [B, heads, Tl, D]; on a CPU contiguous, on a GPU a view, which
  // its kernels read where it lies.
  Tensor by_heads(Context& cx, const DecoderPass& pass, Tensor y) const {
    const int64_t rows = pass.batch.ids.dim(0), tokens = pass.batch.own_tokens;
    const int64_t features = config_->head_features;
    y = ops::reshape(cx, y, {rows, tokens, y.shape()[-1] / features, features});
    y = ops::permute(cx, y, std::array{0, 2, 1, 3});
    return cx.stream() == nullptr ? ops::contiguous(cx, y) : y;
  }

  static Tensor turned(Context& cx, const DecoderPass& pass, const Tensor& x) {
    const auto& [cos, sin] = pass.angles;
    const Tensor y =
        ops::rotary(cx, ops::cast(cx, x, cos.dtype()), cos, sin, ops::RotaryForm::kHalves);
    return ops::cast(cx, y, x.dtype());
  }

  Tensor mlp(Context& cx, const DecoderPass& pass, int64_t layer, const Tensor& input) override {
    const Tensor x = rms_norm(cx, pass, input, weight(layer, llama::kNorm2));
    const std::vector<Tensor> inner = parallel::column_linears(
        cx, pass.axis, x, std::array{weight(layer, llama::kGate), weight(layer, llama::kUp)},
        WeightLayout::kOutIn);
    return parallel::row_linear(cx, pass.axis, ops::swiglu(cx, inner[0], inner[1]),
                                weight(layer, llama::kDown), Tensor(), WeightLayout::kOutIn, input);
  }

  const std::shared_ptr<const Config> config_;
  const Tensor frequencies_;
};

class LlamaFamily final : public ModelFamily {
 public:
  std::string_view name() const override { return "llama"; }

  Result<ModelConfigPtr> parse_config(std::string_view json) const override {
    WEFT_ASSIGN_OR_RETURN(std::shared_ptr<const Config> config, llama::parse_config(json));
    return ModelConfigPtr(std::move(config));
  }

  ModelConfigPtr with_dropout(const ModelConfig& config, double rate) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->attention_dropout = rate;
    return copy;
  }

  ModelConfigPtr with_layers(const ModelConfig& config, int64_t layers) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->layers = layers;
    return copy;
  }

  std::vector<ParameterInfo> plan(const ModelConfig& config, int tensor_size,
                                  int tensor_index) const override {
    return llama::plan(config_as<Config>(config), tensor_size, tensor_index);
  }

  Result<std::unique_ptr<Trunk>> make_trunk(Rank& rank, ModelConfigPtr config) const override {
    return std::make_unique<LlamaTrunk>(rank,
                                        std::make_shared<const Config>(config_as<Config>(*config)));
  }

  std::string_view prefix() const override { return "model."; }
  bool ignored_in_files(std::string_view tensor, const ModelConfig& config) const override {
    return llama::ignored_in_files(tensor, config_as<Config>(config));
  }
  std::string config_json(const ModelConfig& config, const ExportHead& head) const override {
    return llama::config_json(config_as<Config>(config), head);
  }
};

}  // namespace

const ModelFamily& llama_family() {
  static const LlamaFamily family;
  return family;
}

}  // namespace weft
