// What the GPT-2 family computes (Radford et al. 2019): pre-norm blocks of causal attention and an
// MLP, with learned positions. Names and shapes are transformers' (matrices stored [in, out]).
#include <array>

#include "kernels/autograd/tape.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/strided.h"
#include "proto/base/activity.h"
#include "worker/models/families.h"
#include "worker/models/gpt2_config.h"
#include "worker/models/gpt2_plan.h"
#include "worker/parallel/blocked.h"
#include "worker/parallel/sequence_attention.h"
#include "worker/parallel/tensor_parallel.h"

namespace weft {
namespace {

using gpt2::BlockParameter;
using gpt2::Config;
using ops::WeightLayout;

// Uses of random numbers, each a stream of its own.
enum DropoutUse : uint64_t { kEmbeddingDropout, kScoreDropout, kAttentionDropout, kMlpDropout };

class Gpt2Trunk final : public Trunk {
 public:
  Gpt2Trunk(Rank& rank, std::shared_ptr<const Config> config)
      : Trunk(rank), config_(std::move(config)) {
    Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    parameters_ = make_trunk_parameters(rank, gpt2::plan(*config_, tensor.size(), tensor.rank()));
    head_ = part_of(config_->heads, tensor.size(), tensor.rank());
  }

  const ModelConfig& config() const override { return *config_; }
  std::vector<Parameter>& parameters() override { return parameters_; }

  Tensor forward(Context& cx, const TokenBatch& batch) override {
    const parallel::TensorAxis axis = axis_for(batch);
    open(kEmbeddingUnit, unit_of(0));
    Tensor x = parallel::vocabulary_embedding(
        cx, axis, batch.ids, parameters_[gpt2::kTokenEmbedding].value, config_->vocabulary);
    const Tensor positions = parallel::own_numbers(cx, axis, batch.positions);
    const Tensor table =
        parallel::replicated(cx, axis, parameters_[gpt2::kPositionEmbedding].value);
    x = ops::add(cx, x, ops::embedding(cx, positions, table));
    x = dropout(cx, axis, batch, x, config_->embedding_dropout, kEmbeddingDropout, 0);
    for (int64_t layer = 0; layer < config_->layers; ++layer) {
      x = block(cx, axis, batch, layer, x);
    }
    if (batch.cache != nullptr) batch.cache->length += batch.own_tokens;
    const size_t norm =
        gpt2::kFirstBlock + static_cast<size_t>(config_->layers) * gpt2::kParametersPerBlock;
    open(last_unit(), {});
    x = layer_norm(cx, axis, x, parameters_[norm].value, parameters_[norm + 1].value);
    return open_again(cx, last_unit(), x);
  }

  TokenHead token_head(Context& cx, const TokenBatch& batch, const Tensor& hidden) override {
    const Tensor& table =
        config_->tied ? parameters_[gpt2::kTokenEmbedding].value : parameters_.back().value;
    open(config_->tied ? kEmbeddingUnit : last_unit(), {});
    return {parallel::column_input(cx, axis_for(batch), hidden), table};
  }

  Tensor joined_hidden(Context& cx, const TokenBatch& batch, const Tensor& hidden) override {
    return parallel::join_tokens(cx, axis_for(batch), hidden);
  }

 private:
  static constexpr int64_t kEmbeddingUnit = 0;
  static int64_t unit_of(int64_t layer) { return 1 + layer; }
  int64_t last_unit() const { return unit_of(config_->layers); }

  Tensor block(Context& cx, const parallel::TensorAxis& axis, const TokenBatch& batch,
               int64_t layer, const Tensor& input) {
    const int64_t unit = unit_of(layer);
    const auto attended = [this, axis, batch, layer, unit](Context& inner, const Tensor& x) {
      open(unit, unit + 1);
      return attention(inner, axis, batch, layer, x);
    };
    const auto whole = [this, axis, batch, layer, attended](Context& inner, const Tensor& x) {
      return mlp(inner, axis, batch, layer, attended(inner, x));
    };
    const Activity::Layer inside(rank().activity, static_cast<int>(layer));
    const auto compute = [&] {
      if (batch.recompute == Recompute::kNothing) return whole(cx, input);
      if (batch.recompute == Recompute::kBlock) return checkpointed(cx, whole, input);
      return mlp(cx, axis, batch, layer, checkpointed(cx, attended, input));
    };
    return open_again(cx, unit, compute());
  }

  parallel::TensorAxis axis_for(const TokenBatch& batch) const {
    Communicator& tensor = rank().mesh.axis(Axis::kTensor);
    if (rank().blocks > 0) {
      return parallel::blocked_axis(rank(), batch.ids.dim(0) * batch.own_tokens);
    }
    return {tensor, tensor.size() > 1, batch.own_tokens};
  }

  const Tensor& weight(int64_t layer, BlockParameter which) const {
    return parameters_[gpt2::kFirstBlock + static_cast<size_t>(layer) * gpt2::kParametersPerBlock +
                       which]
        .value;
  }

  Tensor layer_norm(Context& cx, const parallel::TensorAxis& axis, const Tensor& x,
                    const Tensor& gamma, const Tensor& beta) const {
    return ops::layer_norm(cx, x, parallel::replicated(cx, axis, gamma),
                           parallel::replicated(cx, axis, beta), config_->epsilon);
  }

  // x between blocks, [B, Tb, H].
  Tensor dropout(Context& cx, const parallel::TensorAxis& axis, const TokenBatch& batch,
                 const Tensor& x, double rate, DropoutUse use, int64_t layer) const {
    if (!batch.training || rate == 0) return x;
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

  Tensor attention(Context& cx, const parallel::TensorAxis& axis, const TokenBatch& batch,
                   int64_t layer, const Tensor& input) {
    const int64_t rows = batch.ids.dim(0), tokens = batch.own_tokens;
    const int64_t features = config_->head_features();
    Tensor x = layer_norm(cx, axis, input, weight(layer, gpt2::kNorm1Weight),
                          weight(layer, gpt2::kNorm1Bias));
    x = parallel::column_linear(cx, axis, x, weight(layer, gpt2::kAttentionWeight),
                                weight(layer, gpt2::kAttentionBias), WeightLayout::kInOut,
                                std::nullopt, /*parts=*/3);
    const std::array<Tensor, 3> parts =
        query_key_value(cx, ops::reshape(cx, x, {rows, tokens, 3, head_.length, features}));
    x = attend(cx, batch, layer, parts[0], parts[1], parts[2]);
    x = ops::reshape(cx, ops::permute(cx, x, std::array{0, 2, 1, 3}),
                     {rows, tokens, head_.length * features});
    return joined(cx, axis, batch, layer, input, x, gpt2::kAttentionOutWeight, kAttentionDropout);
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
  Tensor joined(Context& cx, const parallel::TensorAxis& axis, const TokenBatch& batch,
                int64_t layer, const Tensor& input, const Tensor& x, BlockParameter which,
                DropoutUse use) {
    const Tensor& matrix = weight(layer, which);
    const Tensor& bias = weight(layer, static_cast<BlockParameter>(which + 1));
    const bool drops = batch.training && config_->residual_dropout > 0;
    const Tensor y = parallel::row_linear(cx, axis, x, matrix, bias, WeightLayout::kInOut,
                                          drops ? Tensor() : input);
    if (!drops) return y;
    return ops::add(cx, input, dropout(cx, axis, batch, y, config_->residual_dropout, use, layer));
  }

  Tensor attend(Context& cx, const TokenBatch& batch, int64_t layer, const Tensor& query,
                const Tensor& key, const Tensor& value) {
    attention::Parameters parameters;
    parameters.scale = config_->score_scale(layer);
    parameters.visibility.causal = true;
    if (batch.cache != nullptr) {
      return attend_cached(cx, *batch.cache, layer, query, key, value, parameters);
    }
    parameters.visibility.key_valid = batch.key_valid;
    parameters.visibility.query_document = batch.documents;
    parameters.visibility.key_document = batch.documents;
    if (batch.training && config_->attention_dropout > 0) {
      parameters.dropout.rate = config_->attention_dropout;
      parameters.dropout.key = batch.random.derive(kScoreDropout, static_cast<uint64_t>(layer));
      parameters.dropout.rows = batch.rows;
      parameters.dropout.heads = config_->heads;
      parameters.dropout.first_row = batch.first_row;
      parameters.dropout.first_head = head_.start;
    }
    return parallel::sequence_attention(cx, rank().mesh, *batch.layout, query, key, value,
                                        parameters);
  }

  // Puts the new keys and values behind those of the cache and attends to all of them.
  Tensor attend_cached(Context& cx, KeyValueCache& cache, int64_t layer, const Tensor& query,
                       const Tensor& key, const Tensor& value, attention::Parameters& parameters) {
    const int64_t rows = key.dim(0), tokens = key.dim(2);
    const int64_t total = cache.length + tokens;
    WEFT_CHECK(total <= cache.capacity, "{} of {} tokens", total, cache.capacity);
    if (static_cast<int64_t>(cache.keys.size()) <= layer) {
      const Shape shape{rows, head_.length, cache.capacity, config_->head_features()};
      cache.keys.push_back(Tensor::empty(cx.allocator, shape));
      cache.values.push_back(Tensor::empty(cx.allocator, shape));
    }
    const Tensor& keys = cache.keys[static_cast<size_t>(layer)];
    const Tensor& values = cache.values[static_cast<size_t>(layer)];
    append(cx, keys, key, cache.length);
    append(cx, values, value, cache.length);
    parameters.visibility.query_position = count_up(cx, rows, cache.length, tokens);
    parameters.visibility.key_position = count_up(cx, rows, 0, total);
    return attention::scaled_dot_product(
        cx, query, ops::contiguous(cx, ops::slice(cx, keys, 2, 0, total)),
        ops::contiguous(cx, ops::slice(cx, values, 2, 0, total)), parameters);
  }

  // Rows of `added` [B, N, T, D] to tokens [at, at + T) of `all` [B, N, capacity, D].
  static void append(Context& cx, const Tensor& all, const Tensor& added, int64_t at) {
    copy_into(cx.pool, added, all.view(added.shape(), all.strides(), at * all.dim(3)));
  }

  static Tensor count_up(Context& cx, int64_t rows, int64_t first, int64_t count) {
    std::vector<int64_t> numbers(static_cast<size_t>(rows * count));
    int64_t next = 0;
    for (int64_t& number : numbers) number = first + next++ % count;
    return Tensor::from<int64_t>(cx.allocator, {rows, count}, numbers);
  }

  Tensor mlp(Context& cx, const parallel::TensorAxis& axis, const TokenBatch& batch, int64_t layer,
             const Tensor& input) {
    Tensor x = layer_norm(cx, axis, input, weight(layer, gpt2::kNorm2Weight),
                          weight(layer, gpt2::kNorm2Bias));
    x = parallel::column_linear(cx, axis, x, weight(layer, gpt2::kMlpWeight),
                                weight(layer, gpt2::kMlpBias), WeightLayout::kInOut,
                                config_->activation);
    return joined(cx, axis, batch, layer, input, x, gpt2::kMlpOutWeight, kMlpDropout);
  }

  const std::shared_ptr<const Config> config_;
  std::vector<Parameter> parameters_;
  Part head_;  // this rank's heads
};

class Gpt2Family final : public ModelFamily {
 public:
  std::string_view name() const override { return "gpt2"; }

  Result<ModelConfigPtr> parse_config(std::string_view json) const override {
    WEFT_ASSIGN_OR_RETURN(std::shared_ptr<const Config> config, gpt2::parse_config(json));
    return ModelConfigPtr(std::move(config));
  }

  ModelConfigPtr with_dropout(const ModelConfig& config, double rate) const override {
    auto copy = std::make_shared<Config>(own(config));
    copy->residual_dropout = copy->embedding_dropout = copy->attention_dropout = rate;
    return copy;
  }

  std::vector<ParameterInfo> plan(const ModelConfig& config, int tensor_size,
                                  int tensor_index) const override {
    return gpt2::plan(own(config), tensor_size, tensor_index);
  }

  Result<std::unique_ptr<Trunk>> make_trunk(Rank& rank, ModelConfigPtr config) const override {
    return std::make_unique<Gpt2Trunk>(rank, std::make_shared<const Config>(own(*config)));
  }

  std::vector<std::string> file_names(std::string_view parameter) const override {
    return gpt2::file_names(parameter);
  }
  bool ignored_in_files(std::string_view tensor, const ModelConfig& config) const override {
    return gpt2::ignored_in_files(tensor, own(config));
  }
  std::string config_json(const ModelConfig& config, const ExportHead& head) const override {
    return gpt2::config_json(own(config), head);
  }

 private:
  static const Config& own(const ModelConfig& config) {
    const auto* mine = dynamic_cast<const Config*>(&config);
    WEFT_CHECK(mine != nullptr, "a configuration of {}", config.family);
    return *mine;
  }
};

}  // namespace

const ModelFamily& gpt2_family() {
  static const Gpt2Family family;
  return family;
}

}  // namespace weft
