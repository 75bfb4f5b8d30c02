// What the Llama family computes (Touvron et al. 2023): pre-norm blocks of causal attention with
// rotary positions and grouped queries, and of a SwiGLU MLP. Its kin, by their configuration:
// windows (Mistral: Jiang et al. 2023), biases of queries, keys and values (Qwen2: Yang et al.
// 2024), RMS norms of each head's query and key (Qwen3: Yang et al. 2025).
#include <array>
#include <cmath>

#include "kernels/ops/elementwise.h"
#include "kernels/ops/norms.h"
#include "kernels/ops/ops.h"
#include "worker/models/families.h"
#include "worker/models/llama_config.h"
#include "worker/models/llama_dialect.h"
#include "worker/models/llama_plan.h"
#include "worker/models/transformer_trunk.h"
#include "worker/parallel/blocked.h"

namespace weft {
namespace {

using llama::Config;
using ops::WeightLayout;

class LlamaTrunk final : public TransformerTrunk {
 public:
  LlamaTrunk(Rank& rank, std::shared_ptr<const Config> config, std::span<const ParameterInfo> plan)
      : TransformerTrunk(rank, config, plan, WeightLayout::kOutIn, llama::kFirstBlock),
        config_(std::move(config)),
        at_(*config_),
        frequencies_(Tensor::from<double>(*rank.allocator, {config_->head_features / 2},
                                          config_->frequencies())) {}

 private:
  Tensor embed(Context& cx, TransformerPass& pass) override {
    const Tensor x = parallel::vocabulary_embedding(
        cx, pass.axis, pass.batch.ids, parameter(llama::kTokenEmbedding), config_->vocabulary,
        config_->pad_token_id.value_or(-1));
    const DType dtype = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
    pass.angles = ops::rotary_angles(cx, pass.batch.positions, frequencies_, dtype);
    return x;
  }

  Tensor last_norm(Context& cx, const TransformerPass& pass, const Tensor& x) override {
    return rms_norm(cx, pass, x, last(0));
  }

  Tensor rms_norm(Context& cx, const TransformerPass& pass, const Tensor& x,
                  const Tensor& gamma) const {
    return ops::rms_norm(cx, x, parallel::replicated(cx, pass.axis, gamma), config_->epsilon);
  }

  Tensor attention(Context& cx, const TransformerPass& pass, int64_t layer,
                   const Tensor& input) override {
    Tensor x = rms_norm(cx, pass, input, weight(layer, at_.norm1));
    // Keys and values may be of heads that other ranks have too.
    const auto inputs = [&](size_t behind) {
      return std::array{weight(layer, at_.query + behind),
                        shared_by_heads(cx, weight(layer, at_.key + behind)),
                        shared_by_heads(cx, weight(layer, at_.value + behind))};
    };
    const std::array weights = inputs(0);
    const std::vector<Tensor> biases = input_biases(inputs);
    const std::vector<Tensor> heads =
        columns(cx, pass, layer, std::array{at_.query, at_.key, at_.value}, x, weights, biases);
    const auto norm = [&](size_t at) { return config_->head_norms ? weight(layer, at) : Tensor(); };
    const Tensor query =
        turned(cx, pass, normed_by_heads(cx, pass, heads[0], norm(at_.query_norm), config_->heads));
    const Tensor key = turned(
        cx, pass, normed_by_heads(cx, pass, heads[1], norm(at_.key_norm), config_->key_heads));
    const Tensor value = by_heads(cx, pass, heads[2]);
    ScoreOptions options{1 / std::sqrt(static_cast<double>(config_->head_features)),
                         config_->attention_dropout};
    if (config_->has_window(layer)) options.window_left = config_->window - 1;
    x = attend(cx, pass, layer, query, key, value, options);
    const Tensor bias = config_->output_bias ? weight(layer, at_.attention_out + 1) : Tensor();
    return row(cx, pass, layer, at_.attention_out, x, bias, input);
  }

  // None where the configuration has none; inputs(1): those behind the weights.
  template <typename Inputs>
  std::vector<Tensor> input_biases(const Inputs& inputs) const {
    if (!config_->input_biases) return {};
    const std::array biases = inputs(1);
    return {biases.begin(), biases.end()};
  }

  // gamma: of an RMS norm over a head's features, or empty. heads: of the model, of which y has
  // this rank's.
  Tensor normed_by_heads(Context& cx, const TransformerPass& pass, const Tensor& y,
                         const Tensor& gamma, int64_t heads) const {
    if (!gamma) return by_heads(cx, pass, y);
    const int64_t features = config_->head_features;
    const Tensor apart = ops::reshape(
        cx, y, {pass.batch.ids.dim(0), pass.batch.own_tokens, y.shape()[-1] / features, features});
    return by_heads(cx, pass, head_norm(cx, pass, apart, gamma, heads));
  }

  // Each rank of the tensor axis has terms of gamma's gradient, those of its heads.
  Tensor head_norm(Context& cx, const TransformerPass& pass, const Tensor& y, const Tensor& gamma,
                   int64_t heads) const {
    if (pass.axis.blocks == 0) {
      const Tensor shared = parallel::copy_to_axis(cx, pass.axis.comm, gamma);
      return ops::rms_norm(cx, y, shared, config_->epsilon);
    }
    const Tensor ones = Tensor::full(cx.allocator, {y.shape()[-1]}, 1.0, y.dtype());
    return parallel::blocked_scale(cx, pass.axis, ops::rms_norm(cx, y, ones, config_->epsilon),
                                   gamma, heads);
  }

  static Tensor turned(Context& cx, const TransformerPass& pass, const Tensor& x) {
    const auto& [cos, sin] = pass.angles;
    const Tensor y =
        ops::rotary(cx, ops::cast(cx, x, cos.dtype()), cos, sin, ops::RotaryForm::kHalves);
    return ops::cast(cx, y, x.dtype());
  }

  Tensor mlp(Context& cx, const TransformerPass& pass, int64_t layer,
             const Tensor& input) override {
    const Tensor x = rms_norm(cx, pass, input, weight(layer, at_.norm2));
    const std::vector<Tensor> inner =
        columns(cx, pass, layer, std::array{at_.gate, at_.up}, x,
                std::array{weight(layer, at_.gate), weight(layer, at_.up)});
    return row(cx, pass, layer, at_.down, ops::swiglu(cx, inner[0], inner[1]), Tensor(), input);
  }

  const std::shared_ptr<const Config> config_;
  const llama::BlockPlaces at_;
  const Tensor frequencies_;
};

class LlamaFamily final : public ModelFamily {
 public:
  explicit LlamaFamily(const llama::Dialect& dialect) : dialect_(dialect) {}
  std::string_view name() const override { return dialect_.name; }

  Result<ModelConfigPtr> parse_config(std::string_view json) const override {
    WEFT_ASSIGN_OR_RETURN(std::shared_ptr<const Config> config,
                          llama::parse_config(dialect_, json));
    return ModelConfigPtr(std::move(config));
  }

  ModelConfigPtr with_dropout(const ModelConfig& config, double rate) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->attention_dropout = rate;
    return copy;
  }

  ModelConfigPtr with_adapter(const ModelConfig& config, const Adapter& adapter) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->adapter = adapter;
    return copy;
  }
  std::vector<std::string> default_targets() const override { return {"q_proj", "v_proj"}; }
  ops::WeightLayout layout() const override { return WeightLayout::kOutIn; }

  ModelConfigPtr with_layers(const ModelConfig& config, int64_t layers) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->layers = layers;
    copy->count_windows();
    return copy;
  }

  std::vector<ParameterInfo> base_plan(const ModelConfig& config, int tensor_size, int tensor_index,
                                       int blocks) const override {
    return llama::plan(config_as<Config>(config), tensor_size, tensor_index, blocks);
  }

  Result<std::unique_ptr<Trunk>> make_trunk(Rank& rank, ModelConfigPtr config) const override {
    const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    return std::make_unique<LlamaTrunk>(rank,
                                        std::make_shared<const Config>(config_as<Config>(*config)),
                                        plan(*config, tensor.size(), tensor.rank(), rank.blocks));
  }

  std::optional<Head> head(const ModelConfig&, HeadKind kind, int64_t labels) const override {
    return decoder_head(kind, labels);
  }
  std::string_view prefix() const override { return "model."; }
  bool ignored_in_files(std::string_view tensor, const ModelConfig& config) const override {
    return llama::ignored_in_files(tensor, config_as<Config>(config));
  }
  std::string config_json(const ModelConfig& config, const ExportHead& head) const override {
    return llama::config_json(dialect_, config_as<Config>(config), head);
  }

 private:
  const llama::Dialect& dialect_;
};

}  // namespace

std::span<const ModelFamily* const> llama_families() {
  static const std::vector<LlamaFamily> families(llama::dialects().begin(),
                                                 llama::dialects().end());
  static const std::vector<const ModelFamily*> all = [] {
    std::vector<const ModelFamily*> pointers;
    for (const LlamaFamily& family : families) pointers.push_back(&family);
    return pointers;
  }();
  return all;
}

}  // namespace weft
