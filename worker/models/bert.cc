// What BERT computes (Devlin et al. 2019): post-norm blocks of attention to the whole row and an
// MLP, behind a norm of the sum of embeddings. Its kin, by their dialect: RoBERTa (Liu et al. 2019)
// and DistilBERT (Sanh et al. 2019).
#include <array>
#include <cmath>

#include "kernels/ops/ops.h"
#include "worker/models/bert_config.h"
#include "worker/models/bert_dialect.h"
#include "worker/models/bert_head.h"
#include "worker/models/bert_plan.h"
#include "worker/models/families.h"
#include "worker/models/transformer_trunk.h"

namespace weft {
namespace {

using bert::BlockParameter;
using bert::Config;
using bert::Dialect;
using ops::WeightLayout;

class BertTrunk final : public TransformerTrunk {
 public:
  BertTrunk(Rank& rank, const Dialect& dialect, std::shared_ptr<const Config> config,
            std::span<const ParameterInfo> plan)
      : TransformerTrunk(rank, config, plan, WeightLayout::kOutIn, bert::first_block(dialect)),
        dialect_(dialect),
        config_(std::move(config)) {}

 private:
  Tensor embed(Context& cx, TransformerPass& pass) override {
    const int64_t padding = config_->pad_token_id.value_or(-1);
    Tensor x = parallel::vocabulary_embedding(cx, pass.axis, pass.batch.ids,
                                              parameter(bert::kTokenEmbedding), config_->vocabulary,
                                              padding);
    x = ops::add(cx, x,
                 looked_up(cx, pass, pass.batch.positions, bert::kPositionEmbedding,
                           config_->positions_skip_padding ? padding : -1));
    if (dialect_.token_types) {
      const Tensor& given = pass.batch.token_types;
      const Tensor types =
          given ? given : Tensor::zeros(cx.allocator, pass.batch.ids.shape(), DType::kI64);
      x = ops::add(cx, x, looked_up(cx, pass, types, bert::kTypeEmbedding, -1));
    }
    open_first_block();
    const size_t norm = bert::first_norm(dialect_);
    x = layer_norm(cx, pass, x, parameter(norm), parameter(norm + 1), config_->epsilon);
    return between_dropout(cx, pass, x, config_->dropout, kEmbeddingDropout, 0);
  }

  // Rows of a table that every rank of the tensor axis has whole.
  Tensor looked_up(Context& cx, const TransformerPass& pass, const Tensor& numbers, size_t table,
                   int64_t padding) const {
    return ops::embedding(cx, parallel::own_numbers(cx, pass.axis, numbers),
                          parallel::replicated(cx, pass.axis, parameter(table)), 0, padding);
  }

  Tensor norm(Context& cx, const TransformerPass& pass, int64_t layer, BlockParameter which,
              const Tensor& x) const {
    return layer_norm(cx, pass, x, weight(layer, which), weight(layer, which + 1),
                      config_->epsilon);
  }

  Tensor attention(Context& cx, const TransformerPass& pass, int64_t layer,
                   const Tensor& input) override {
    constexpr std::array<size_t, 3> kInputs{bert::kQuery, bert::kKey, bert::kValue};
    std::array<Tensor, 3> weights, biases;
    for (size_t i = 0; i < kInputs.size(); ++i) {
      weights[i] = weight(layer, kInputs[i]);
      biases[i] = weight(layer, kInputs[i] + 1);
    }
    const std::vector<Tensor> parts = columns(cx, pass, layer, kInputs, input, weights, biases);
    const Tensor x = attend(
        cx, pass, layer, by_heads(cx, pass, parts[0]), by_heads(cx, pass, parts[1]),
        by_heads(cx, pass, parts[2]),
        {1 / std::sqrt(static_cast<double>(config_->head_features)), config_->attention_dropout});
    const double rate = dialect_.drops_attention ? config_->dropout : 0;
    const Tensor sum =
        add_row(cx, pass, layer, bert::kAttentionOut, x, weight(layer, bert::kAttentionOut + 1),
                input, rate, kAttentionDropout);
    return norm(cx, pass, layer, bert::kNorm1, sum);
  }

  Tensor mlp(Context& cx, const TransformerPass& pass, int64_t layer,
             const Tensor& input) override {
    const Tensor x = column(cx, pass, layer, bert::kInner, input, weight(layer, bert::kInner + 1),
                            config_->activation);
    const Tensor sum = add_row(cx, pass, layer, bert::kOuter, x, weight(layer, bert::kOuter + 1),
                               input, config_->dropout, kMlpDropout);
    return norm(cx, pass, layer, bert::kNorm2, sum);
  }

  const Dialect& dialect_;
  const std::shared_ptr<const Config> config_;
};

class BertFamily final : public ModelFamily {
 public:
  explicit BertFamily(const Dialect& dialect)
      : dialect_(dialect), prefix_(std::string(dialect.name) + ".") {}
  std::string_view name() const override { return dialect_.name; }

  Result<ModelConfigPtr> parse_config(std::string_view json) const override {
    WEFT_ASSIGN_OR_RETURN(std::shared_ptr<const Config> config, bert::parse_config(dialect_, json));
    return ModelConfigPtr(std::move(config));
  }

  ModelConfigPtr with_dropout(const ModelConfig& config, double rate) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->dropout = copy->attention_dropout = rate;
    copy->classifier_dropout = rate;
    if (dialect_.distilled) copy->answer_dropout = rate;
    return copy;
  }

  ModelConfigPtr with_adapter(const ModelConfig& config, const Adapter& adapter) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->adapter = adapter;
    return copy;
  }
  std::vector<std::string> default_targets() const override {
    const auto last_part = [](std::string_view name) {
      return std::string(name.substr(name.rfind('.') + 1));
    };
    return {last_part(dialect_.block.query), last_part(dialect_.block.value)};
  }
  ops::WeightLayout layout() const override { return WeightLayout::kOutIn; }

  ModelConfigPtr with_layers(const ModelConfig& config, int64_t layers) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->layers = layers;
    return copy;
  }

  std::vector<ParameterInfo> base_plan(const ModelConfig& config, int tensor_size, int tensor_index,
                                       int /*blocks*/) const override {
    return bert::plan(dialect_, config_as<Config>(config), tensor_size, tensor_index);
  }

  std::optional<Head> head(const ModelConfig& config, HeadKind kind,
                           int64_t labels) const override {
    if (kind == HeadKind::kImage || kind == HeadKind::kPermuted) return std::nullopt;
    return bert::head(dialect_, config_as<Config>(config), kind, labels);
  }

  Result<std::unique_ptr<Trunk>> make_trunk(Rank& rank, ModelConfigPtr config) const override {
    const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    return std::make_unique<BertTrunk>(rank, dialect_,
                                       std::make_shared<const Config>(config_as<Config>(*config)),
                                       plan(*config, tensor.size(), tensor.rank()));
  }

  std::string_view prefix() const override { return prefix_; }
  std::string_view token_head() const override { return dialect_.token_head; }
  bool ignored_in_files(std::string_view tensor, const ModelConfig&) const override {
    return bert::ignored_in_files(dialect_, tensor);
  }
  std::string config_json(const ModelConfig& config, const ExportHead& head) const override {
    return bert::config_json(dialect_, config_as<Config>(config), head);
  }

 private:
  const Dialect& dialect_;
  const std::string prefix_;
};

}  // namespace

std::span<const ModelFamily* const> bert_families() {
  static const std::vector<BertFamily> families(bert::dialects().begin(), bert::dialects().end());
  static const std::vector<const ModelFamily*> all = [] {
    std::vector<const ModelFamily*> pointers;
    for (const BertFamily& family : families) pointers.push_back(&family);
    return pointers;
  }();
  return all;
}

}  // namespace weft
