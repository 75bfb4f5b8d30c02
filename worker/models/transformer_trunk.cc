#include "worker/models/transformer_trunk.h"

#include <algorithm>

#include "kernels/autograd/tape.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/strided.h"
#include "proto/base/activity.h"
#include "worker/parallel/blocked.h"

namespace weft {

using parallel::Side;

namespace {

constexpr int64_t kCachedTokensMin = 256;

// Rows of `added` [B, N, T, D] to tokens [at, at + T) of `all` [B, N, room, D], which has no more
// than `capacity` and grows by doubling; an empty handle has no room.
void append(Context& cx, Tensor& all, const Tensor& added, int64_t at, int64_t capacity) {
  Shape shape = added.shape();
  const int64_t total = at + shape[2];
  if (!all || all.dim(2) < total) {
    shape[2] = std::min(capacity, std::max(kCachedTokensMin, 2 * total));
    const Tensor larger = Tensor::empty(cx.allocator, shape, added.dtype());
    shape[2] = at;
    if (at > 0) {
      copy_into(cx.pool, all.view(shape, all.strides(), 0),
                larger.view(shape, larger.strides(), 0));
    }
    all = larger;
  }
  copy_into(cx.pool, added, all.view(added.shape(), all.strides(), at * all.dim(3)));
}

Tensor count_up(Context& cx, int64_t rows, int64_t first, int64_t count) {
  std::vector<int64_t> numbers(static_cast<size_t>(rows * count));
  int64_t next = 0;
  for (int64_t& number : numbers) number = first + next++ % count;
  return Tensor::from<int64_t>(cx.allocator, {rows, count}, numbers);
}

// [B, N, T, D] -> [B, T, N * D].
Tensor by_tokens(Context& cx, const Tensor& y) {
  const Tensor x = ops::permute(cx, y, std::array{0, 2, 1, 3});
  return ops::reshape(cx, x, {x.dim(0), x.dim(1), x.dim(2) * x.dim(3)});
}

parallel::HeadParts own_heads(const Rank& rank, const ModelConfig& config) {
  const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
  const auto parts = rank.blocks > 0 ? parallel::blocked_head_parts : parallel::head_parts;
  return parts(config.heads, config.key_heads, tensor.size(), tensor.rank());
}

// Of a weight whose outputs, one range of them, the tensor axis shares out. Read with blocks alone.
parallel::Held held_of(const parallel::TensorAxis& axis, const ParameterInfo& info) {
  if (axis.blocks == 0) return {};
  const Part own = axis.part(info.shape[info.shard.dim]);
  return {{own.start - info.shard.ranges.front().start, own.length}, info.shard.cell};
}

std::vector<size_t> first_places(std::span<const ParameterInfo> plan, size_t first_block) {
  std::vector<size_t> places;
  for (size_t at = 0; at < plan.size(); ++at) {
    if (std::ssize(places) == plan[at].unit) places.push_back(at);
    if (at == first_block) places.back() = at;
  }
  return places;
}

std::vector<size_t> adapter_places(std::span<const ParameterInfo> plan, size_t parts) {
  std::vector<size_t> places(plan.size());
  for (size_t first = 0, end = 0; first < plan.size(); first = end) {
    while (end < plan.size() && plan[end].unit == plan[first].unit) ++end;
    size_t at = first;
    while (at < end && plan[at].adapts.empty()) ++at;
    for (; at < end; at += parts) {
      const auto unit = plan.subspan(first, end - first);
      const auto adapted = std::ranges::find(unit, plan[at].adapts, &ParameterInfo::name);
      places[static_cast<size_t>(adapted - plan.begin())] = at;
    }
  }
  return places;
}

}  // namespace

TransformerTrunk::TransformerTrunk(Rank& rank, ModelConfigPtr config,
                                   std::span<const ParameterInfo> plan, ops::WeightLayout layout,
                                   size_t first_block)
    : Trunk(rank),
      shared_(std::move(config)),
      layout_(layout),
      first_of_unit_(first_places(plan, first_block)),
      adapter_of_(adapter_places(plan, shared_->adapter.parts())),
      heads_(own_heads(rank, *shared_)),
      parameters_(make_trunk_parameters(rank, plan)) {
  // All ranks agree on whether there is anything to share. With blocks gradients of keys are summed
  // before any weight's.
  const int64_t ranks = rank.mesh.size(Axis::kTensor);
  if (rank.blocks > 0) return;
  if (shared_->key_heads == shared_->heads || shared_->key_heads >= ranks) return;
  rank.mesh.share_heads(heads_.keys);
}

Tensor TransformerTrunk::forward(Context& cx, const TokenBatch& batch) {
  TransformerPass pass{.axis = axis_for(batch), .batch = batch};
  open_rows(kEmbeddingUnit, batch.ids, shared_->unit_of(0));
  const Tensor x = through_blocks(cx, pass, {0, shared_->layers}, embed(cx, pass));
  if (batch.cache != nullptr) batch.cache->length += batch.own_tokens;
  const int64_t last = shared_->last_unit();
  if (parameters_.back().info.unit < last) return x;
  open(last, {});
  return open_again(cx, last, last_norm(cx, pass, x));
}

Tensor TransformerTrunk::through_blocks(Context& cx, const TransformerPass& pass, Part layers,
                                        Tensor x) {
  for (int64_t layer = layers.start; layer < layers.start + layers.length; ++layer) {
    x = block(cx, pass, layer, x);
  }
  return x;
}

TokenHead TransformerTrunk::token_head(Context& cx, const TokenBatch& batch, const Tensor& hidden) {
  const Tensor table = token_table();
  const double scale = shared_->logit_scale;
  const Tensor input = scale == 1 ? hidden : ops::scale(cx, hidden, scale);
  return {parallel::column_input(cx, axis_for(batch), input), table};
}

Tensor TransformerTrunk::token_table() {
  open(shared_->tied ? kEmbeddingUnit : shared_->last_unit(), {});
  return shared_->tied ? parameters_.front().value : parameters_.back().value;
}

Tensor TransformerTrunk::joined_hidden(Context& cx, const TokenBatch& batch, const Tensor& hidden) {
  return parallel::join_tokens(cx, axis_for(batch), hidden);
}

parallel::TensorAxis TransformerTrunk::axis_for(const TokenBatch& batch) const {
  Communicator& tensor = rank().mesh.axis(Axis::kTensor);
  if (rank().blocks > 0) {
    return parallel::blocked_axis(rank(), batch.ids.dim(0) * batch.own_tokens);
  }
  return {tensor, tensor.size() > 1, batch.own_tokens};
}

Tensor TransformerTrunk::block(Context& cx, const TransformerPass& pass, int64_t layer,
                               const Tensor& input) {
  const int64_t unit = shared_->unit_of(layer);
  const auto attended = [this, pass, layer, unit](Context& inner, const Tensor& x) {
    open_attention(unit, unit + 1);
    return attention(inner, pass, layer, x);
  };
  const auto rest = [this, pass, layer, unit](Context& inner, const Tensor& x) {
    open_rest(unit);
    return mlp(inner, pass, layer, x);
  };
  const auto whole = [attended, rest](Context& inner, const Tensor& x) {
    return rest(inner, attended(inner, x));
  };
  const Activity::Layer inside(rank().activity, static_cast<int>(layer));
  const auto compute = [&] {
    if (pass.batch.recompute == Recompute::kNothing) return whole(cx, input);
    if (pass.batch.recompute == Recompute::kBlock) return checkpointed(cx, whole, input);
    return rest(cx, checkpointed(cx, attended, input));
  };
  return open_again(cx, unit, compute());
}

Tensor TransformerTrunk::column(Context& cx, const TransformerPass& pass, int64_t layer,
                                size_t which, const Tensor& x, const Tensor& bias,
                                std::optional<ops::Activation> activation, int parts) {
  const bool adapts = adapter_of(layer, which) > 0, rescales = adapts && shared_->adapter.dora;
  const auto product = [&](const Tensor& input) {
    return parallel::column_linear(cx, pass.axis, input, weight(layer, which),
                                   rescales ? Tensor() : bias, layout_,
                                   adapts ? std::nullopt : activation, parts);
  };
  Tensor y = product(x);
  if (!adapts) return y;
  y = adapted(cx, pass, layer, which, x, y, Side::kColumn, product, parts);
  if (rescales && bias) y = ops::add(cx, y, bias);
  return activation ? ops::activate(cx, y, *activation) : y;
}

std::vector<Tensor> TransformerTrunk::columns(Context& cx, const TransformerPass& pass,
                                              int64_t layer, std::span<const size_t> which,
                                              const Tensor& x, std::span<const Tensor> weights,
                                              std::span<const Tensor> biases) {
  // Magnitudes scale what the maps give without their biases.
  const bool rescales = shared_->adapter.dora && !biases.empty();
  std::vector<parallel::Held> held;
  for (const size_t each : which) {
    held.push_back(held_of(pass.axis, parameters_[first_of(layer) + each].info));
  }
  std::vector<Tensor> all = parallel::column_linears(
      cx, pass.axis, x, weights, rescales ? std::span<const Tensor>() : biases, layout_, held);
  for (size_t i = 0; i < all.size(); ++i) {
    const auto product = [&](const Tensor& input) {
      const std::span one = weights.subspan(i, 1);
      const std::span of_one = std::span(held).subspan(i, 1);
      return parallel::column_linears(cx, pass.axis, input, one, {}, layout_, of_one)[0];
    };
    all[i] = adapted(cx, pass, layer, which[i], x, all[i], Side::kColumn, product);
    if (rescales) all[i] = ops::add(cx, all[i], biases[i]);
  }
  return all;
}

Tensor TransformerTrunk::row(Context& cx, const TransformerPass& pass, int64_t layer, size_t which,
                             const Tensor& x, const Tensor& bias, const Tensor& residual) {
  const bool rescales = adapter_of(layer, which) > 0 && shared_->adapter.dora;
  const auto product = [&](const Tensor& input) {
    return parallel::row_linear(cx, pass.axis, input, weight(layer, which),
                                rescales ? Tensor() : bias, layout_,
                                rescales ? Tensor() : residual);
  };
  Tensor sum = adapted(cx, pass, layer, which, x, product(x), Side::kRow, product);
  if (!rescales) return sum;
  if (bias) sum = ops::add(cx, sum, parallel::replicated(cx, pass.axis, bias));
  return residual ? ops::add(cx, residual, sum) : sum;
}

Tensor TransformerTrunk::adapted(Context& cx, const TransformerPass& pass, int64_t layer,
                                 size_t which, const Tensor& x, const Tensor& y, Side side,
                                 const Product& product, int parts) {
  const size_t place = adapter_of(layer, which);
  if (place == 0) return y;
  const ParameterInfo& a = parameters_[place].info;
  const Adapter& adapter = shared_->adapter;
  // Rows of B and magnitudes may be of heads that other ranks have too.
  const auto of_outputs = [&](size_t at) {
    const Tensor& value = parameter(at);
    return parameters_[at].info.shard.copies > 1 ? shared_by_heads(cx, value) : value;
  };
  parallel::LowRank map{parameter(place), of_outputs(place + 1), adapter.scaling(), parts};
  if (side == Side::kColumn && parts == 1) {
    map.held = held_of(pass.axis, parameters_[place + 1].info);
  }
  const int64_t first_adapter =
      std::ranges::find_if(parameters_,
                           [](const Parameter& each) { return !each.info.adapts.empty(); }) -
      parameters_.begin();
  const uint64_t per_block = static_cast<uint64_t>(first_adapter) - first_of(0);
  const RandomKey key =
      pass.batch.random.derive(kAdapterDropout, static_cast<uint64_t>(layer) * per_block + which);
  DropoutPlace at{side == Side::kColumn ? pass.axis.token_part() : Part{0, pass.batch.own_tokens},
                  a.shape[1]};
  if (!a.shard.whole()) at.first_feature = a.shard.ranges[0].start;
  const Tensor input = token_dropout(cx, rank(), pass.batch, x, adapter.dropout, key, at);
  if (!adapter.dora) return parallel::add_low_rank(cx, pass.axis, side, input, map, y);
  const parallel::Magnitude magnitude{of_outputs(place + 2), weight(layer, which), layout_};
  // What is rescaled is of the input that dropout leaves, as in PEFT.
  const bool drops = pass.batch.training && adapter.dropout > 0;
  return parallel::add_rescaled(cx, pass.axis, side, input, map, magnitude, y,
                                drops ? product(input) : Tensor());
}

Tensor TransformerTrunk::layer_norm(Context& cx, const TransformerPass& pass, const Tensor& x,
                                    const Tensor& gamma, const Tensor& beta, double epsilon) {
  return ops::layer_norm(cx, x, parallel::replicated(cx, pass.axis, gamma),
                         parallel::replicated(cx, pass.axis, beta), epsilon);
}

Tensor TransformerTrunk::between_dropout(Context& cx, const TransformerPass& pass, const Tensor& x,
                                         double rate, DropoutUse use, int64_t layer) const {
  const RandomKey key = pass.batch.random.derive(use, static_cast<uint64_t>(layer));
  return token_dropout(cx, rank(), pass.batch, x, rate, key,
                       {pass.axis.token_part(), shared_->hidden});
}

Tensor TransformerTrunk::add_row(Context& cx, const TransformerPass& pass, int64_t layer,
                                 size_t which, const Tensor& x, const Tensor& bias,
                                 const Tensor& input, double rate, DropoutUse use) {
  const bool drops = pass.batch.training && rate > 0;
  const Tensor y = row(cx, pass, layer, which, x, bias, drops ? Tensor() : input);
  return drops ? ops::add(cx, input, between_dropout(cx, pass, y, rate, use, layer)) : y;
}

Tensor TransformerTrunk::by_heads(Context& cx, const TransformerPass& pass, const Tensor& y) const {
  const int64_t rows = pass.batch.ids.dim(0), tokens = pass.batch.own_tokens;
  const int64_t features = shared_->head_features;
  const int64_t heads = y.shape().dims() == 4 ? y.dim(2) : y.shape()[-1] / features;
  const Tensor x = ops::permute(cx, ops::reshape(cx, y, {rows, tokens, heads, features}),
                                std::array{0, 2, 1, 3});
  return cx.stream() == nullptr ? ops::contiguous(cx, x) : x;
}

Tensor TransformerTrunk::shared_by_heads(Context& cx, const Tensor& shard) const {
  const Mesh& mesh = rank().mesh;
  return mesh.shares_heads() ? parallel::copy_to_axis(cx, mesh.axis(Axis::kKeyHeads), shard)
                             : shard;
}

parallel::KeyTerms TransformerTrunk::key_terms() const {
  return {rank().blocks, shared_->heads, shared_->key_heads};
}

Tensor TransformerTrunk::attend(Context& cx, const TransformerPass& pass, int64_t layer,
                                const Tensor& query, const Tensor& key, const Tensor& value,
                                const ScoreOptions& options) {
  const TokenBatch& batch = pass.batch;
  attention::Parameters parameters;
  parameters.scale = options.scale;
  parameters.visibility.causal = options.causal.value_or(shared_->attention.causal);
  parameters.visibility.window_left = options.window_left;
  parameters.distance_bias = pass.distance_bias;
  const auto attended = [&] {
    if (batch.cache != nullptr) {
      return attend_cached(cx, *batch.cache, layer, query, key, value, parameters);
    }
    parameters.visibility.key_valid = batch.key_valid;
    parameters.visibility.query_document = batch.documents;
    parameters.visibility.key_document = batch.documents;
    parameters.dropout = score_dropout(batch, options.dropout, kScoreDropout, layer);
    return parallel::sequence_attention(cx, rank().mesh, *batch.layout, query, key, value,
                                        parameters, key_terms());
  };
  return by_tokens(cx, attended());
}

Tensor TransformerTrunk::attend_relative(Context& cx, const TransformerPass& pass, int64_t layer,
                                         const Tensor& query, const Tensor& key,
                                         const Tensor& value, const attention::RelativeTerms& terms,
                                         const ScoreOptions& options) const {
  const TokenBatch& batch = pass.batch;
  attention::Parameters parameters;
  parameters.scale = options.scale;
  parameters.visibility.key_valid = batch.key_valid;
  if (batch.predictions.count > 0) {
    parameters.visibility.causal = true;
    parameters.visibility.query_position = batch.predictions.query_order;
    parameters.visibility.key_position = batch.predictions.key_order;
  }
  parameters.dropout = score_dropout(batch, options.dropout, kScoreDropout, layer);
  parameters.dropout.queries = batch.tokens;
  parameters.dropout.keys = batch.row_tokens();
  return by_tokens(cx, attention::relative_attention(cx, query, key, value, terms, parameters));
}

Tensor TransformerTrunk::attend_to_source(Context& cx, const TransformerPass& pass, int64_t layer,
                                          const Tensor& query, const Tensor& key,
                                          const Tensor& value, const ScoreOptions& options) const {
  const TokenBatch& batch = pass.batch;
  attention::Parameters parameters;
  parameters.scale = options.scale;
  if (batch.cache != nullptr) {
    return by_tokens(cx, attention::scaled_dot_product(cx, query, key, value, parameters));
  }
  const TokenBatch& source = pass.source->batch;
  parameters.visibility.key_valid = source.key_valid;
  parameters.dropout = score_dropout(batch, options.dropout, kSourceScoreDropout, layer);
  return by_tokens(cx, parallel::sequence_attention(cx, rank().mesh, *batch.layout, *source.layout,
                                                    query, key, value, parameters, key_terms()));
}

attention::WeightDropout TransformerTrunk::score_dropout(const TokenBatch& batch, double rate,
                                                         DropoutUse use, int64_t layer) const {
  attention::WeightDropout dropout;
  if (!batch.training || rate == 0) return dropout;
  dropout.rate = rate;
  dropout.key = batch.random.derive(use, static_cast<uint64_t>(layer));
  dropout.rows = batch.rows;
  dropout.heads = shared_->heads;
  dropout.first_row = batch.first_row;
  dropout.first_head = heads_.queries.start;
  return dropout;
}

// Puts the new keys and values behind those of the cache and attends to all of them.
Tensor TransformerTrunk::attend_cached(Context& cx, KeyValueCache& cache, int64_t layer,
                                       const Tensor& query, const Tensor& key, const Tensor& value,
                                       attention::Parameters& parameters) const {
  const int64_t rows = key.dim(0), tokens = key.dim(2);
  const int64_t total = cache.length + tokens;
  WEFT_CHECK(total <= cache.capacity, "{} of {} tokens", total, cache.capacity);
  cache.keys.resize(std::max(cache.keys.size(), static_cast<size_t>(layer) + 1));
  cache.values.resize(cache.keys.size());
  Tensor& keys = cache.keys[static_cast<size_t>(layer)];
  Tensor& values = cache.values[static_cast<size_t>(layer)];
  append(cx, keys, key, cache.length, cache.capacity);
  append(cx, values, value, cache.length, cache.capacity);
  parameters.visibility.query_position = count_up(cx, rows, cache.length, tokens);
  parameters.visibility.key_position = count_up(cx, rows, 0, total);
  return attention::scaled_dot_product(
      cx, query, ops::contiguous(cx, ops::slice(cx, keys, 2, 0, total)),
      ops::contiguous(cx, ops::slice(cx, values, 2, 0, total)), parameters);
}

}  // namespace weft
