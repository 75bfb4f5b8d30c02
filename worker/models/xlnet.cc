// What XLNet computes (Yang et al. 2019): post-norm blocks of attention to the whole row, whose
// scores know of distances and segments (Dai et al. 2019), and an MLP.
//
// Its two streams are one here: queries of what is predicted stand behind a row's tokens and go
// through all that these do, by the same weights; keys and values are of the tokens alone. In the
// last block the tokens' own part is of no use then, and is computed all the same.
//
// Its tokenizer pads on the left, so that the token that is classified is each row's last one. Rows
// are padded on the right here as all are: distances are what positions are told by, and nobody
// sees padding, so tokens get the same states on either side; and the last one is looked for.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/ops/elementwise.h"
#include "kernels/ops/movement.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/reductions.h"
#include "kernels/ops/rotary.h"
#include "worker/models/families.h"
#include "worker/models/transformer_trunk.h"
#include "worker/models/xlnet_config.h"
#include "worker/models/xlnet_plan.h"
#include "worker/parallel/blocked.h"

namespace weft {
namespace {

using ops::WeightLayout;

// In topology-invariant training blocks are whole rows, and each has distances of its own, or with
// dropout each row: so what maps them has a gradient that is a sum over blocks, as of tokens.
class XlnetTrunk final : public TransformerTrunk {
 public:
  XlnetTrunk(Rank& rank, std::shared_ptr<const xlnet::Config> config,
             std::span<const ParameterInfo> plan)
      : TransformerTrunk(rank, config, plan, WeightLayout::kOutIn, xlnet::kFirstBlock),
        config_(std::move(config)),
        rates_(rates(rank, config_->hidden / 2)) {}

  Tensor forward(Context& cx, const TokenBatch& batch) override {
    const Tensor x = TransformerTrunk::forward(cx, batch);
    const TransformerPass pass{.axis = axis_for(batch), .batch = batch};
    return between_dropout(cx, pass, x, config_->dropout, kLastDropout, 0);
  }

 private:
  Tensor embed(Context& cx, TransformerPass& pass) override {
    const Tensor x =
        pass.batch.predictions.count == 0
            ? parallel::vocabulary_embedding(cx, pass.axis, pass.batch.ids,
                                             parameter(xlnet::kTokenEmbedding), config_->vocabulary)
            : tokens_and_predictions(cx, pass);
    pass.distances = distances(cx, pass, x.dtype());
    return between_dropout(cx, pass, x, config_->dropout, kEmbeddingDropout, 0);
  }

  // What stands for every token that is predicted comes behind the row's tokens.
  Tensor tokens_and_predictions(Context& cx, const TransformerPass& pass) const {
    const Predictions& asked = pass.batch.predictions;
    const Part rows = pass.axis.part(config_->vocabulary);
    const Tensor tokens =
        ops::embedding(cx, pass.batch.ids, parameter(xlnet::kTokenEmbedding), rows.start);
    const Tensor x = parallel::row_output(cx, pass.axis, ops::pad(cx, tokens, 1, 0, asked.count));
    const Tensor mask = parallel::replicated(cx, pass.axis, parameter(xlnet::kMaskEmbedding));
    return ops::add(cx, x,
                    ops::embedding(cx, parallel::own_numbers(cx, pass.axis, asked.marks), mask));
  }

  static Tensor rates(const Rank& rank, int64_t count) {
    std::vector<double> values;
    for (int64_t i = 0; i < count; ++i) {
      values.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(count)));
    }
    return Tensor::from<double>(*rank.allocator, {count}, values);
  }

  // Of a key T - 1 tokens before a query to one as far behind it, [1, 2 T - 1, H], T the row's
  // tokens; with dropout of each row, [B, 2 T - 1, H]. With blocks those of what this rank has
  // between blocks. Made of what is on the device: a pass that waits for values of the host's
  // cannot be recorded.
  Tensor distances(Context& cx, const TransformerPass& pass, DType dtype) const {
    const TokenBatch& batch = pass.batch;
    const int64_t hidden = config_->hidden, most = config_->distance_max;
    const int64_t tokens = batch.row_tokens(), count = std::max<int64_t>(0, 2 * tokens - 1);
    const DType wide = attention::sum_dtype(dtype);
    const auto numbers = [&](int64_t each) {
      return Tensor::full(cx.allocator, {count}, static_cast<double>(each), wide);
    };
    // tokens - 1, ..., 1 - tokens
    Tensor behind = ops::add(cx, numbers(tokens), ops::cumulative_sum(cx, numbers(-1), 0));
    if (most > 0) {
      behind = ops::clamp(cx, behind, -static_cast<double>(most), static_cast<double>(most));
    }
    const ops::Angles angles =
        ops::rotary_angles(cx, ops::cast(cx, behind, DType::kI64), rates_, wide);
    const Tensor waves = ops::concat(cx, std::array{angles.sin, angles.cos}, 1);
    const Tensor all = ops::cast(cx, ops::reshape(cx, waves, {1, count, hidden}), dtype);
    const bool drops = batch.training && config_->dropout > 0, in_blocks = pass.axis.blocks > 0;
    if (!drops && !in_blocks) return all;
    const Part own = own_groups(pass, drops);
    const Tensor alike = ops::expand(cx, all, {own.length, count, hidden});
    if (!drops) return ops::contiguous(cx, alike);
    return ops::dropout(cx, alike, config_->dropout, batch.random.derive(kDistanceDropout, 0),
                        {{batch.rows, count, hidden}, {batch.first_row + own.start, 0, 0}});
  }

  // Of the rows, or of blocks of them, those whose distances this rank maps.
  static Part own_groups(const TransformerPass& pass, bool rows) {
    const int64_t all = rows ? pass.batch.ids.dim(0) : pass.axis.token_blocks();
    return pass.axis.blocks > 0 ? pass.axis.part(all) : Part{0, all};
  }

  Tensor attention(Context& cx, const TransformerPass& pass, int64_t layer,
                   const Tensor& input) override {
    const std::array weights{of_heads(cx, layer, xlnet::kQuery), of_heads(cx, layer, xlnet::kKey),
                             of_heads(cx, layer, xlnet::kValue)};
    const std::vector<Tensor> parts =
        parallel::column_linears(cx, pass.axis, input, weights, {}, WeightLayout::kInOut);
    const int64_t rows = pass.batch.ids.dim(0);
    const Predictions& asked = pass.batch.predictions;
    const auto of_tokens = [&](const Tensor& x, int dim) {
      return asked.count == 0 ? x : ops::slice(cx, x, dim, 0, pass.batch.row_tokens());
    };
    attention::RelativeTerms terms;
    if (pass.axis.blocks > 0) terms.blocks = pass.axis.token_blocks();
    terms.distances = distance_heads(cx, pass, layer);
    terms.places = asked.places;
    terms.content = weight(layer, xlnet::kContent);
    terms.position = weight(layer, xlnet::kPosition);
    // Where all tokens are of one segment, each query's term is the same of all keys.
    if (pass.batch.token_types) {
      terms.segment = weight(layer, xlnet::kSegment);
      terms.segments = weight(layer, xlnet::kSegments);
      terms.query_segment = pass.batch.token_types;
      terms.key_segment = of_tokens(pass.batch.token_types, 1);
    }
    const Tensor x = attend_relative(
        cx, pass, layer, queries(cx, pass, parts[0]), to_heads(cx, of_tokens(parts[1], 1), rows),
        to_heads(cx, of_tokens(parts[2], 1), rows), terms,
        {1 / std::sqrt(static_cast<double>(config_->head_features)), config_->dropout});
    const bool drops = pass.batch.training && config_->dropout > 0;
    Tensor sum = parallel::row_linear(cx, pass.axis, x, of_heads(cx, layer, xlnet::kAttentionOut),
                                      Tensor(), WeightLayout::kOutIn, drops ? Tensor() : input);
    if (drops) {
      sum = between_dropout(cx, pass, sum, config_->dropout, kAttentionDropout, layer);
      sum = ops::add(cx, input, sum);
    }
    return norm(cx, pass, layer, xlnet::kNorm1, sum);
  }

  // A matrix of this rank's heads, [H, N * D]; with blocks as it is, [H, N, D], which their
  // products take as that, so that its gradient, a term of a sum, is not rounded on its way.
  Tensor of_heads(Context& cx, int64_t layer, xlnet::BlockParameter which) const {
    const Tensor& all = weight(layer, which);
    if (rank().blocks > 0) return all;
    return ops::reshape(cx, all, {all.dim(0), all.dim(1) * all.dim(2)});
  }

  // [B, 1 or blocks of rows, N, 2 T - 1, D]
  Tensor distance_heads(Context& cx, const TransformerPass& pass, int64_t layer) const {
    const Tensor weight = of_heads(cx, layer, xlnet::kDistance);
    const Tensor& x = pass.distances;
    if (pass.axis.blocks == 0) {
      return to_heads(cx, ops::linear(cx, x, weight, Tensor(), WeightLayout::kInOut), x.dim(0));
    }
    const int64_t groups = x.dim(0) * pass.axis.comm.size(), count = x.dim(1);
    const Tensor y = parallel::column_linear(cx, parallel::blocked_axis(rank(), groups * count),
                                             ops::reshape(cx, x, {1, x.dim(0) * count, x.dim(2)}),
                                             weight, Tensor(), WeightLayout::kInOut);
    return to_heads(cx, y, groups);
  }

  // [B, T, N * D], or all rows in one -> [B, N, T, D]
  Tensor to_heads(Context& cx, const Tensor& y, int64_t rows) const {
    const int64_t width = config_->head_features, features = y.shape()[-1];
    const int64_t tokens = rows == 0 ? y.dim(1) : y.dim(0) * y.dim(1) / rows;
    const Tensor heads = ops::reshape(cx, y, {rows, tokens, features / width, width});
    return ops::contiguous(cx, ops::permute(cx, heads, std::array{0, 2, 1, 3}));
  }

  Tensor queries(Context& cx, const TransformerPass& pass, const Tensor& y) const {
    const Tensor q = to_heads(cx, y, pass.batch.ids.dim(0));
    const Predictions& asked = pass.batch.predictions;
    if (!asked.together) return q;
    const int64_t tokens = pass.batch.row_tokens(), count = asked.count;
    const Tensor sums =
        ops::cast(cx, ops::reshape(cx, asked.together, {q.dim(0), 1, count, count}), q.dtype());
    const std::array all{ops::slice(cx, q, 2, 0, tokens),
                         ops::matmul(cx, sums, ops::slice(cx, q, 2, tokens, count))};
    return ops::concat(cx, all, 2);
  }

  Tensor norm(Context& cx, const TransformerPass& pass, int64_t layer, xlnet::BlockParameter which,
              const Tensor& x) const {
    return layer_norm(cx, pass, x, weight(layer, which), weight(layer, which + 1),
                      config_->epsilon);
  }

  Tensor mlp(Context& cx, const TransformerPass& pass, int64_t layer,
             const Tensor& input) override {
    Tensor x = column(cx, pass, layer, xlnet::kInner, input, weight(layer, xlnet::kInner + 1),
                      config_->activation);
    const RandomKey key = pass.batch.random.derive(kInnerDropout, static_cast<uint64_t>(layer));
    const Part own = pass.axis.part(config_->inner);
    x = token_dropout(cx, rank(), pass.batch, x, config_->dropout, key,
                      {{0, pass.batch.own_tokens}, config_->inner, own.start});
    const Tensor sum = add_row(cx, pass, layer, xlnet::kOuter, x, weight(layer, xlnet::kOuter + 1),
                               input, config_->dropout, kMlpDropout);
    return norm(cx, pass, layer, xlnet::kNorm2, sum);
  }

  const std::shared_ptr<const xlnet::Config> config_;
  const Tensor rates_;  // of the waves that distances are told by, float64 [H / 2]
};

class XlnetFamily final : public ModelFamily {
 public:
  std::string_view name() const override { return "xlnet"; }

  Result<ModelConfigPtr> parse_config(std::string_view json) const override {
    WEFT_ASSIGN_OR_RETURN(std::shared_ptr<const xlnet::Config> config, xlnet::parse_config(json));
    return ModelConfigPtr(std::move(config));
  }

  ModelConfigPtr with_dropout(const ModelConfig& config, double rate) const override {
    auto copy = std::make_shared<xlnet::Config>(config_as<xlnet::Config>(config));
    copy->set_dropout(rate);
    copy->summary_first_dropout = copy->summary_last_dropout = rate;
    return copy;
  }

  ModelConfigPtr with_adapter(const ModelConfig& config, const Adapter& adapter) const override {
    auto copy = std::make_shared<xlnet::Config>(config_as<xlnet::Config>(config));
    copy->adapter = adapter;
    return copy;
  }
  std::vector<std::string> default_targets() const override { return {"layer_1", "layer_2"}; }
  ops::WeightLayout layout() const override { return WeightLayout::kOutIn; }

  ModelConfigPtr with_predictions(ModelConfigPtr config) const override {
    auto copy = std::make_shared<xlnet::Config>(config_as<xlnet::Config>(*config));
    copy->predicts = true;
    return copy;
  }

  ModelConfigPtr with_layers(const ModelConfig& config, int64_t layers) const override {
    auto copy = std::make_shared<xlnet::Config>(config_as<xlnet::Config>(config));
    copy->layers = layers;
    return copy;
  }

  std::vector<ParameterInfo> base_plan(const ModelConfig& config, int tensor_size, int tensor_index,
                                       int /*blocks*/) const override {
    return xlnet::plan(config_as<xlnet::Config>(config), tensor_size, tensor_index);
  }

  std::optional<Head> head(const ModelConfig& config, HeadKind kind,
                           int64_t labels) const override {
    const auto& own = config_as<xlnet::Config>(config);
    if (kind == HeadKind::kToken) return Head{.layers = {{.name = "classifier", .out = labels}}};
    if (kind == HeadKind::kPermuted) return Head{.vocabulary_bias = "lm_loss.bias"};
    if (kind != HeadKind::kSequence && kind != HeadKind::kChoice) return std::nullopt;
    const HeadLayer summary{.name = "sequence_summary.summary",
                            .out = own.hidden,
                            .dropout = own.summary_first_dropout,
                            .activation = own.summary_activation};
    const HeadLayer classes{.name = "logits_proj",
                            .out = kind == HeadKind::kChoice ? 1 : labels,
                            .dropout = own.summary_last_dropout};
    return Head{.pooled = own.summary == "first" ? PooledToken::kFirst : PooledToken::kEnd,
                .layers = {summary, classes}};
  }

  Result<std::unique_ptr<Trunk>> make_trunk(Rank& rank, ModelConfigPtr config) const override {
    if (const int parts = rank.mesh.size(Axis::kSequence); parts > 1) {
      return fail(Status::invalid("parallel.sequence", std::to_string(parts),
                                  "must be 1 with xlnet: a rank needs all distances of a row"));
    }
    const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    return std::make_unique<XlnetTrunk>(
        rank, std::make_shared<const xlnet::Config>(config_as<xlnet::Config>(*config)),
        plan(*config, tensor.size(), tensor.rank()));
  }

  std::string_view prefix() const override { return "transformer."; }
  std::string_view token_head() const override { return xlnet::kTokenHead; }
  bool ignored_in_files(std::string_view tensor, const ModelConfig&) const override {
    return xlnet::ignored_in_files(tensor);
  }
  std::string config_json(const ModelConfig& config, const ExportHead& head) const override {
    return xlnet::config_json(config_as<xlnet::Config>(config), head);
  }
};

}  // namespace

const ModelFamily& xlnet_family() {
  static const XlnetFamily family;
  return family;
}

}  // namespace weft
