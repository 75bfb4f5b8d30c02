// What ViT computes (Dosovitskiy et al. 2021): pre-norm blocks of attention to the whole image and
// an MLP, on patches that are mapped linearly behind a class token, with learned positions.
#include <array>
#include <cmath>

#include "kernels/ops/ops.h"
#include "worker/models/families.h"
#include "worker/models/transformer_trunk.h"
#include "worker/models/vit_config.h"
#include "worker/models/vit_plan.h"
#include "worker/parallel/blocked.h"

namespace weft {
namespace {

using ops::WeightLayout;
using vit::BlockPlaces;
using vit::Config;

constexpr int64_t kPatchId = 1;  // of TokenBatch::ids; the class token's is 0

class VitTrunk final : public TransformerTrunk {
 public:
  VitTrunk(Rank& rank, std::shared_ptr<const Config> config, std::span<const ParameterInfo> plan)
      : TransformerTrunk(rank, config, plan, WeightLayout::kOutIn, vit::kFirstBlock),
        config_(std::move(config)),
        at_(*config_) {}

 private:
  // The class token's patch is zeros, and the projection's bias a row that patches look up.
  Tensor embed(Context& cx, TransformerPass& pass) override {
    const Tensor classes = looked_up(cx, pass, pass.batch.ids, vit::kClassToken, 0);
    const Tensor biases = looked_up(cx, pass, pass.batch.ids, vit::kProjection + 1, kPatchId);
    const Tensor places = looked_up(cx, pass, pass.batch.positions, vit::kPositionEmbedding, 0);
    const Tensor x = projected(cx, pass, ops::add(cx, ops::add(cx, classes, biases), places));
    return between_dropout(cx, pass, x, config_->dropout, kEmbeddingDropout, 0);
  }

  Tensor looked_up(Context& cx, const TransformerPass& pass, const Tensor& numbers, size_t table,
                   int64_t first) const {
    return ops::embedding(cx, parallel::own_numbers(cx, pass.axis, numbers),
                          parallel::replicated(cx, pass.axis, parameter(table)), first);
  }

  // What is mapped of this rank's tokens between blocks, and added.
  Tensor projected(Context& cx, const TransformerPass& pass, const Tensor& added) const {
    const parallel::TensorAxis& axis = pass.axis;
    const Tensor weight = parallel::replicated(cx, axis, parameter(vit::kProjection));
    const Tensor patches =
        ops::cast(cx, parallel::own_numbers(cx, axis, pass.batch.patches), weight.dtype());
    if (axis.blocks == 0) {
      return ops::linear(cx, patches, weight, Tensor(), WeightLayout::kOutIn, std::nullopt, added);
    }
    parallel::TensorAxis of_world = axis;  // which shares out what lies between blocks
    of_world.replicas = &rank().mesh.axis(Axis::kWorld);
    return ops::add(cx, added,
                    parallel::blocked_linear(cx, of_world, patches, weight, Tensor(),
                                             {.layout = WeightLayout::kOutIn}));
  }

  Tensor last_norm(Context& cx, const TransformerPass& pass, const Tensor& x) override {
    return layer_norm(cx, pass, x, last(0), last(1), config_->epsilon);
  }

  Tensor norm(Context& cx, const TransformerPass& pass, int64_t layer, size_t which,
              const Tensor& x) const {
    return layer_norm(cx, pass, x, weight(layer, which), weight(layer, which + 1),
                      config_->epsilon);
  }

  Tensor attention(Context& cx, const TransformerPass& pass, int64_t layer,
                   const Tensor& input) override {
    const std::array<size_t, 3> inputs{at_.query, at_.key, at_.value};
    std::vector<Tensor> weights, biases;
    for (const size_t which : inputs) {
      weights.push_back(weight(layer, which));
      if (config_->input_biases) biases.push_back(weight(layer, which + 1));
    }
    const Tensor normed = norm(cx, pass, layer, at_.norm1, input);
    const std::vector<Tensor> parts = columns(cx, pass, layer, inputs, normed, weights, biases);
    const Tensor x = attend(
        cx, pass, layer, by_heads(cx, pass, parts[0]), by_heads(cx, pass, parts[1]),
        by_heads(cx, pass, parts[2]),
        {1 / std::sqrt(static_cast<double>(config_->head_features)), config_->attention_dropout});
    return add_row(cx, pass, layer, at_.attention_out, x, weight(layer, at_.attention_out + 1),
                   input, config_->dropout, kAttentionDropout);
  }

  Tensor mlp(Context& cx, const TransformerPass& pass, int64_t layer,
             const Tensor& input) override {
    const Tensor normed = norm(cx, pass, layer, at_.norm2, input);
    const Tensor x = column(cx, pass, layer, at_.inner, normed, weight(layer, at_.inner + 1),
                            config_->activation);
    return add_row(cx, pass, layer, at_.outer, x, weight(layer, at_.outer + 1), input,
                   config_->dropout, kMlpDropout);
  }

  const std::shared_ptr<const Config> config_;
  const BlockPlaces at_;
};

class VitFamily final : public ModelFamily {
 public:
  std::string_view name() const override { return "vit"; }

  Result<ModelConfigPtr> parse_config(std::string_view json) const override {
    WEFT_ASSIGN_OR_RETURN(std::shared_ptr<const Config> config, vit::parse_config(json));
    return ModelConfigPtr(std::move(config));
  }

  ModelConfigPtr with_dropout(const ModelConfig& config, double rate) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->dropout = copy->attention_dropout = rate;
    return copy;
  }

  ModelConfigPtr with_adapter(const ModelConfig& config, const Adapter& adapter) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->adapter = adapter;
    return copy;
  }
  std::vector<std::string> default_targets() const override { return {"query", "value"}; }
  ops::WeightLayout layout() const override { return WeightLayout::kOutIn; }

  ModelConfigPtr with_layers(const ModelConfig& config, int64_t layers) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->layers = layers;
    return copy;
  }

  std::vector<ParameterInfo> base_plan(const ModelConfig& config, int tensor_size, int tensor_index,
                                       int /*blocks*/) const override {
    return vit::plan(config_as<Config>(config), tensor_size, tensor_index);
  }

  std::optional<Head> head(const ModelConfig&, HeadKind kind, int64_t labels) const override {
    if (kind != HeadKind::kImage) return std::nullopt;
    return Head{.pooled = PooledToken::kFirst, .layers = {{.name = "classifier", .out = labels}}};
  }

  Result<std::unique_ptr<Trunk>> make_trunk(Rank& rank, ModelConfigPtr config) const override {
    const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    return std::make_unique<VitTrunk>(rank,
                                      std::make_shared<const Config>(config_as<Config>(*config)),
                                      plan(*config, tensor.size(), tensor.rank()));
  }

  std::string_view prefix() const override { return "vit."; }
  std::vector<std::string> file_names(std::string_view parameter) const override {
    std::vector<std::string> names = ModelFamily::file_names(parameter);
    for (size_t i = 0, count = names.size(); i < count; ++i) {
      names.push_back(vit::name_in_memory(names[i]));
    }
    return names;
  }
  std::string name_in_memory(const std::string& name) const override {
    return vit::name_in_memory(name);
  }
  bool ignored_in_files(std::string_view tensor, const ModelConfig&) const override {
    return vit::ignored_in_files(tensor);
  }
  std::string config_json(const ModelConfig& config, const ExportHead& head) const override {
    return vit::config_json(config_as<Config>(config), head);
  }
};

}  // namespace

const ModelFamily& vit_family() {
  static const VitFamily family;
  return family;
}

}  // namespace weft
