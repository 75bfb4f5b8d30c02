// What T5 computes (Raffel et al. 2020): an encoder and a decoder of pre-norm blocks, whose scores
// have a learned bias by distance and are not scaled. T5 1.1 (Shazeer 2020): a gated MLP and a head
// of its own.
#include <array>
#include <utility>

#include "kernels/ops/norms.h"
#include "kernels/ops/ops.h"
#include "worker/models/encoder_decoder_family.h"
#include "worker/models/encoder_decoder_trunk.h"
#include "worker/models/families.h"
#include "worker/models/t5_config.h"
#include "worker/models/t5_plan.h"
#include "worker/parallel/blocked.h"

namespace weft {
namespace {

using ops::WeightLayout;
using t5::Config;

class T5Trunk final : public EncoderDecoderTrunk {
 public:
  T5Trunk(Rank& rank, std::shared_ptr<const Config> config, std::span<const ParameterInfo> plan)
      : EncoderDecoderTrunk(rank, config, plan, WeightLayout::kOutIn, t5::kFirstBlock),
        config_(std::move(config)),
        encoder_(buckets(/*decoder=*/false)),
        decoder_(buckets(/*decoder=*/true)) {}

 private:
  Tensor embed(Context& cx, TransformerPass& pass) override {
    Tensor x = parallel::vocabulary_embedding(cx, pass.axis, pass.batch.ids,
                                              parameter(t5::kTokenEmbedding), config_->vocabulary);
    x = between_dropout(cx, pass, x, config_->dropout, kEmbeddingDropout, stack_of(pass));
    pass.distance_bias = reads(pass) ? distance_bias(cx, pass, t5::kEncoderDistances, encoder_)
                                     : distance_bias(cx, pass, t5::kDecoderDistances, decoder_);
    return x;
  }

  // A stack's: its tokens', dropped.
  Tensor last_norm(Context& cx, const TransformerPass& pass, const Tensor& x) override {
    return between_dropout(cx, pass, rms_norm(cx, pass, x, norm_of(pass, 0)), config_->dropout,
                           kLastDropout, stack_of(pass));
  }

  Tensor buckets(bool decoder) const {
    const std::vector<int64_t> each = config_->bucket_of_distance(decoder);
    return Tensor::from<int64_t>(*rank().allocator, {std::ssize(each)}, each);
  }

  // [N, 2 R + 1], by a stack's table [buckets, N] and the bucket of each distance; with blocks one
  // of each.
  Tensor distance_bias(Context& cx, const TransformerPass& pass, size_t table,
                       const Tensor& bucket) const {
    if (pass.axis.blocks > 0) {
      return parallel::blocked_distance_bias(cx, pass.axis, parameter(table), bucket);
    }
    const Tensor rows = ops::embedding(cx, bucket, parameter(table));
    return ops::contiguous(cx, ops::permute(cx, rows, std::array{1, 0}));
  }

  Tensor rms_norm(Context& cx, const TransformerPass& pass, const Tensor& x,
                  const Tensor& gamma) const {
    return ops::rms_norm(cx, x, parallel::replicated(cx, pass.axis, gamma), config_->epsilon);
  }

  Tensor attention(Context& cx, const TransformerPass& pass, int64_t layer,
                   const Tensor& input) override {
    constexpr t5::AttentionPlaces kAt = t5::kSelf;
    constexpr std::array kInputs{kAt.query, kAt.key, kAt.value};
    Tensor x = rms_norm(cx, pass, input, weight(layer, kAt.norm));
    const std::vector<Tensor> heads = columns(
        cx, pass, layer, kInputs, x,
        std::array{weight(layer, kAt.query), weight(layer, kAt.key), weight(layer, kAt.value)});
    x = attend(cx, pass, layer, by_heads(cx, pass, heads[0]), by_heads(cx, pass, heads[1]),
               by_heads(cx, pass, heads[2]),
               {.dropout = config_->dropout, .causal = config_->decodes(layer)});
    x = add_row(cx, pass, layer, kAt.out, x, Tensor(), input, config_->dropout, kAttentionDropout);
    return config_->decodes(layer) ? source_attention(cx, pass, layer, x) : x;
  }

  Tensor source_attention(Context& cx, const TransformerPass& pass, int64_t layer,
                          const Tensor& input) {
    constexpr t5::AttentionPlaces kAt = t5::kSource;
    Tensor x = rms_norm(cx, pass, input, weight(layer, kAt.norm));
    const Tensor query = by_heads(cx, pass, column(cx, pass, layer, kAt.query, x, Tensor()));
    const auto [key, value] = source_heads(cx, pass, layer, {kAt.key, kAt.value, {}, {}});
    x = attend_to_source(cx, pass, layer, query, key, value, {.dropout = config_->dropout});
    return add_row(cx, pass, layer, kAt.out, x, Tensor(), input, config_->dropout, kSourceDropout);
  }

  Tensor mlp(Context& cx, const TransformerPass& pass, int64_t layer,
             const Tensor& input) override {
    const t5::MlpPlaces at(*config_, config_->decodes(layer));
    Tensor x = rms_norm(cx, pass, input, weight(layer, at.norm));
    if (config_->gated) {
      const std::vector<Tensor> inner =
          columns(cx, pass, layer, std::array{at.first, at.second}, x,
                  std::array{weight(layer, at.first), weight(layer, at.second)});
      x = ops::multiply(cx, ops::activate(cx, inner[0], config_->activation), inner[1]);
    } else {
      x = column(cx, pass, layer, at.first, x, Tensor(), config_->activation);
    }
    const RandomKey key = pass.batch.random.derive(kInnerDropout, static_cast<uint64_t>(layer));
    const Part own = pass.axis.part(config_->inner);
    x = token_dropout(cx, rank(), pass.batch, x, config_->dropout, key,
                      {{0, pass.batch.own_tokens}, config_->inner, own.start});
    return add_row(cx, pass, layer, at.out, x, Tensor(), input, config_->dropout, kMlpDropout);
  }

  const std::shared_ptr<const Config> config_;
  // int64 [2 R + 1], the bucket of each distance: made once, as a GPU's recorded passes ask for no
  // values of the host's.
  const Tensor encoder_, decoder_;
};

class T5Family final : public EncoderDecoderFamily<Config> {
 public:
  std::string_view name() const override { return "t5"; }

  Result<ModelConfigPtr> parse_config(std::string_view json) const override {
    WEFT_ASSIGN_OR_RETURN(std::shared_ptr<const Config> config, t5::parse_config(json));
    return ModelConfigPtr(std::move(config));
  }

  ModelConfigPtr with_dropout(const ModelConfig& config, double rate) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->dropout = rate;
    return copy;
  }

  std::vector<std::string> default_targets() const override { return {"q", "v"}; }

  std::vector<ParameterInfo> base_plan(const ModelConfig& config, int tensor_size, int tensor_index,
                                       int /*blocks*/) const override {
    return t5::plan(config_as<Config>(config), tensor_size, tensor_index);
  }

  Result<std::unique_ptr<Trunk>> make_trunk(Rank& rank, ModelConfigPtr config) const override {
    const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    return std::make_unique<T5Trunk>(rank,
                                     std::make_shared<const Config>(config_as<Config>(*config)),
                                     plan(*config, tensor.size(), tensor.rank()));
  }

  std::string_view prefix() const override { return "transformer."; }
  std::vector<std::string> file_names(std::string_view parameter) const override {
    if (parameter != "shared.weight") return {std::string(parameter)};
    return {"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"};
  }
  bool ignored_in_files(std::string_view tensor, const ModelConfig& config) const override {
    return t5::ignored_in_files(tensor, config_as<Config>(config));
  }
  std::string config_json(const ModelConfig& config, const ExportHead& head) const override {
    return t5::config_json(config_as<Config>(config), head);
  }
};

}  // namespace

const ModelFamily& t5_family() {
  static const T5Family family;
  return family;
}

}  // namespace weft
