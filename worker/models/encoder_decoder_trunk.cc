#include "worker/models/encoder_decoder_trunk.h"

#include <array>

#include "kernels/ops/ops.h"

namespace weft {

Tensor EncoderDecoderTrunk::forward(Context& cx, const TokenBatch& batch) {
  TransformerPass writing{.axis = axis_for(batch), .batch = batch};
  open(kEmbeddingUnit, config().unit_of(0));
  Tensor x = embed(cx, writing);
  if (batch.source != nullptr) read(cx, writing);
  const int64_t first = config().encoder_layers, last = config().last_unit();
  x = through_blocks(cx, writing, {first, config().layers - first}, x);
  if (batch.cache != nullptr) batch.cache->length += batch.own_tokens;
  open(last, {});
  return open_again(cx, last, last_norm(cx, writing, x));
}

void EncoderDecoderTrunk::read(Context& cx, TransformerPass& writing) {
  const TokenBatch& batch = writing.batch;
  auto reading = std::make_shared<TransformerPass>(
      TransformerPass{.axis = axis_for(*batch.source), .batch = *batch.source});
  reading->batch.training = batch.training;
  reading->batch.recompute = batch.recompute;
  reading->batch.random = batch.random;
  Tensor x = embed(cx, *reading);
  x = through_blocks(cx, *reading, {0, config().encoder_layers}, x);
  const int64_t unit = encoder_norm();
  open(unit, unit + 1);
  x = open_again(cx, unit, last_norm(cx, *reading, x));
  writing.memory = parallel::column_input(cx, reading->axis, x);
  writing.source = std::move(reading);
}

std::pair<Tensor, Tensor> EncoderDecoderTrunk::source_heads(Context& cx,
                                                            const TransformerPass& pass,
                                                            int64_t layer, const SourceMaps& maps) {
  KeyValueCache* cache = pass.batch.cache;
  if (pass.source == nullptr) {
    const auto at = static_cast<size_t>(layer - config().encoder_layers);
    return {cache->source_keys.at(at), cache->source_values.at(at)};
  }
  if (pass.axis.blocks > 0) {
    const std::array inputs{maps.key, maps.value};
    const std::array weights{weight(layer, maps.key), weight(layer, maps.value)};
    const std::array biases{maps.key_bias, maps.value_bias};
    const bool biased = static_cast<bool>(maps.value_bias);
    const std::vector<Tensor> heads =
        columns(cx, *pass.source, layer, inputs, pass.memory, weights,
                biased ? std::span<const Tensor>(biases) : std::span<const Tensor>());
    return {by_heads(cx, *pass.source, heads[0]), by_heads(cx, *pass.source, heads[1])};
  }
  const auto heads = [&](size_t which, const Tensor& bias) {
    const Tensor y =
        ops::linear(cx, pass.memory, weight(layer, which), bias, ops::WeightLayout::kOutIn);
    return by_heads(cx, *pass.source, y);
  };
  std::pair both{heads(maps.key, maps.key_bias), heads(maps.value, maps.value_bias)};
  if (cache != nullptr) {
    cache->source_keys.push_back(both.first);
    cache->source_values.push_back(both.second);
  }
  return both;
}

}  // namespace weft
