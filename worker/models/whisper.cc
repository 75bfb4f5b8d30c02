// What Whisper computes (Radford et al. 2022): an encoder of a recording's features, which two
// convolutions make tokens of, and a decoder of text; pre-norm blocks, whose keys have no biases,
// with a table of positions in front of either stack.
#include <array>
#include <cmath>
#include <utility>

#include "kernels/ops/ops.h"
#include "worker/models/encoder_decoder_family.h"
#include "worker/models/encoder_decoder_trunk.h"
#include "worker/models/families.h"
#include "worker/models/whisper_config.h"
#include "worker/models/whisper_plan.h"
#include "worker/parallel/blocked.h"

namespace weft {
namespace {

using ops::WeightLayout;
using whisper::AttentionPlaces;
using whisper::Config;
using whisper::kEpsilon;

// Behind the convolutions, whatever the MLPs have.
constexpr ops::Activation kConvolved = ops::Activation::kGeluErf;
constexpr int64_t kWindowId = 1;  // of TokenBatch::ids; 0: before all frames

class WhisperTrunk final : public EncoderDecoderTrunk {
 public:
  WhisperTrunk(Rank& rank, std::shared_ptr<const Config> config,
               std::span<const ParameterInfo> plan)
      : EncoderDecoderTrunk(rank, config, plan, WeightLayout::kOutIn, whisper::kFirstBlock),
        config_(std::move(config)) {}

 private:
  Tensor embed(Context& cx, TransformerPass& pass) override {
    const bool hears = reads(pass);
    const size_t table = hears ? whisper::kSourcePositions : whisper::kTargetPositions;
    const Tensor places = looked_up(cx, pass, pass.batch.positions, table, 0);
    const Tensor x = hears ? convolved(cx, pass)
                           : parallel::vocabulary_embedding(
                                 cx, pass.axis, pass.batch.ids, parameter(whisper::kTokenEmbedding),
                                 config_->vocabulary, config_->pad_token_id.value_or(-1));
    return between_dropout(cx, pass, ops::add(cx, x, places), config_->dropout, kEmbeddingDropout,
                           stack_of(pass));
  }

  // A parameter that every rank of the tensor axis has whole.
  Tensor whole(Context& cx, const TransformerPass& pass, size_t place) const {
    return parallel::replicated(cx, pass.axis, parameter(place));
  }

  Tensor looked_up(Context& cx, const TransformerPass& pass, const Tensor& numbers, size_t table,
                   int64_t first) const {
    return ops::embedding(cx, parallel::own_numbers(cx, pass.axis, numbers), whole(cx, pass, table),
                          first);
  }

  // [B, Tb, H]. The second convolution has a stride of 2: token j is made of what the first one
  // makes at frames 2 j - 1 to 2 j + 1, each of the frames beside it. So a token needs no other
  // one's, and all is products, of which neighbours compute every third of the first twice. Before
  // the first frame the second convolution sees zeros: an activation of zero, as there the bias,
  // a row that windows look up, is not added either.
  Tensor convolved(Context& cx, const TransformerPass& pass) {
    open_first_block();
    const Tensor windows = parallel::own_numbers(cx, pass.axis, pass.batch.patches);
    const Tensor first = whole(cx, pass, whisper::kConvolution1);
    const Tensor biases =
        looked_up(cx, pass, pass.batch.ids, whisper::kConvolution1 + 1, kWindowId);
    Tensor x = mapped(cx, pass, ops::cast(cx, windows, first.dtype()), first, Tensor(),
                      std::nullopt, biases);  // [B, Tb, 3, H]
    x = ops::activate(cx, x, kConvolved);
    x = ops::contiguous(cx, ops::permute(cx, x, std::array{0, 1, 3, 2}));  // as the weight has it
    x = ops::reshape(cx, x, {x.dim(0), x.dim(1), x.dim(2) * x.dim(3)});
    return mapped(cx, pass, x, whole(cx, pass, whisper::kConvolution2),
                  whole(cx, pass, whisper::kConvolution2 + 1), kConvolved, Tensor());
  }

  // As ops::linear, of what this rank has between blocks.
  Tensor mapped(Context& cx, const TransformerPass& pass, const Tensor& x, const Tensor& weight,
                const Tensor& bias, std::optional<ops::Activation> activation,
                const Tensor& residual) const {
    constexpr WeightLayout kLayout = WeightLayout::kOutIn;
    if (pass.axis.blocks == 0) {
      return ops::linear(cx, x, weight, bias, kLayout, activation, residual);
    }
    parallel::TensorAxis of_world = pass.axis;  // which shares out what lies between blocks
    of_world.replicas = &rank().mesh.axis(Axis::kWorld);
    return parallel::blocked_linear(cx, of_world, x, weight, bias,
                                    {.layout = kLayout, .activation = activation}, residual);
  }

  Tensor last_norm(Context& cx, const TransformerPass& pass, const Tensor& x) override {
    return layer_norm(cx, pass, x, norm_of(pass, 0), norm_of(pass, 1), kEpsilon);
  }

  Tensor norm(Context& cx, const TransformerPass& pass, int64_t layer, size_t which,
              const Tensor& x) const {
    return layer_norm(cx, pass, x, weight(layer, which), weight(layer, which + 1), kEpsilon);
  }

  // In place of the bias of the keys that `at` makes.
  Tensor no_bias(Context& cx, int64_t layer, const AttentionPlaces& at) const {
    const Tensor& bias = weight(layer, at.value + 1);
    return Tensor::zeros(cx.allocator, bias.shape(), bias.dtype());
  }

  ScoreOptions scores(bool causal) const {
    return {.scale = 1 / std::sqrt(static_cast<double>(config_->head_features)),
            .dropout = config_->attention_dropout,
            .causal = causal};
  }

  Tensor attention(Context& cx, const TransformerPass& pass, int64_t layer,
                   const Tensor& input) override {
    constexpr AttentionPlaces kAt = whisper::kSelf;
    constexpr std::array kInputs{kAt.query, kAt.key, kAt.value};
    Tensor x = norm(cx, pass, layer, kAt.norm, input);
    const std::vector<Tensor> parts = columns(
        cx, pass, layer, kInputs, x,
        std::array{weight(layer, kAt.query), weight(layer, kAt.key), weight(layer, kAt.value)},
        std::array{weight(layer, kAt.query + 1), no_bias(cx, layer, kAt),
                   weight(layer, kAt.value + 1)});
    x = attend(cx, pass, layer, by_heads(cx, pass, parts[0]), by_heads(cx, pass, parts[1]),
               by_heads(cx, pass, parts[2]), scores(config_->decodes(layer)));
    x = add_row(cx, pass, layer, kAt.out, x, weight(layer, kAt.out + 1), input, config_->dropout,
                kAttentionDropout);
    return config_->decodes(layer) ? source_attention(cx, pass, layer, x) : x;
  }

  Tensor source_attention(Context& cx, const TransformerPass& pass, int64_t layer,
                          const Tensor& input) {
    constexpr AttentionPlaces kAt = whisper::kSource;
    Tensor x = norm(cx, pass, layer, kAt.norm, input);
    const Tensor query =
        by_heads(cx, pass, column(cx, pass, layer, kAt.query, x, weight(layer, kAt.query + 1)));
    const auto [key, value] =
        source_heads(cx, pass, layer,
                     {kAt.key, kAt.value, no_bias(cx, layer, kAt), weight(layer, kAt.value + 1)});
    x = attend_to_source(cx, pass, layer, query, key, value, scores(/*causal=*/false));
    return add_row(cx, pass, layer, kAt.out, x, weight(layer, kAt.out + 1), input, config_->dropout,
                   kSourceDropout);
  }

  Tensor mlp(Context& cx, const TransformerPass& pass, int64_t layer,
             const Tensor& input) override {
    const whisper::MlpPlaces at(config_->decodes(layer));
    Tensor x = norm(cx, pass, layer, at.norm, input);
    x = column(cx, pass, layer, at.inner, x, weight(layer, at.inner + 1), config_->activation);
    const RandomKey key = pass.batch.random.derive(kInnerDropout, static_cast<uint64_t>(layer));
    const Part own = pass.axis.part(config_->inner);
    x = token_dropout(cx, rank(), pass.batch, x, config_->activation_dropout, key,
                      {{0, pass.batch.own_tokens}, config_->inner, own.start});
    return add_row(cx, pass, layer, at.outer, x, weight(layer, at.outer + 1), input,
                   config_->dropout, kMlpDropout);
  }

  const std::shared_ptr<const Config> config_;
};

class WhisperFamily final : public EncoderDecoderFamily<Config> {
 public:
  std::string_view name() const override { return "whisper"; }

  Result<ModelConfigPtr> parse_config(std::string_view json) const override {
    WEFT_ASSIGN_OR_RETURN(std::shared_ptr<const Config> config, whisper::parse_config(json));
    return ModelConfigPtr(std::move(config));
  }

  ModelConfigPtr with_dropout(const ModelConfig& config, double rate) const override {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->dropout = copy->attention_dropout = copy->activation_dropout = rate;
    return copy;
  }

  std::vector<std::string> default_targets() const override { return {"q_proj", "v_proj"}; }

  std::vector<ParameterInfo> base_plan(const ModelConfig& config, int tensor_size, int tensor_index,
                                       int /*blocks*/) const override {
    return whisper::plan(config_as<Config>(config), tensor_size, tensor_index);
  }

  Result<std::unique_ptr<Trunk>> make_trunk(Rank& rank, ModelConfigPtr config) const override {
    const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    return std::make_unique<WhisperTrunk>(
        rank, std::make_shared<const Config>(config_as<Config>(*config)),
        plan(*config, tensor.size(), tensor.rank()));
  }

  std::string_view prefix() const override { return "model."; }
  std::string_view token_head() const override { return whisper::kTokenHead; }
  bool ignored_in_files(std::string_view tensor, const ModelConfig& config) const override {
    return whisper::ignored_in_files(tensor, config_as<Config>(config));
  }
  std::string config_json(const ModelConfig& config, const ExportHead& head) const override {
    return whisper::config_json(config_as<Config>(config), head);
  }
};

}  // namespace

const ModelFamily& whisper_family() {
  static const WhisperFamily family;
  return family;
}

}  // namespace weft
