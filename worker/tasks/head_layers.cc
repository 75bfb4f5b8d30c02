#include "worker/tasks/head_layers.h"

#include <utility>

#include "kernels/ops/ops.h"
#include "worker/models/token_dropout.h"
#include "worker/parallel/blocked.h"

namespace weft {

HeadLayers::HeadLayers(Rank& rank, Head head, const ModelConfig& config, const std::string& task)
    : rank_(rank), head_(std::move(head)) {
  const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
  parameters_ = make_parameters(*rank.allocator,
                                head_plan(head_, config, task, tensor.size(), tensor.rank()));
}

Tensor HeadLayers::forward(Context& cx, const TokenBatch& batch, Tensor x) const {
  auto next = parameters_.begin();
  for (size_t i = 0; i < head_.layers.size(); ++i) {
    const HeadLayer& layer = head_.layers[i];
    const Tensor& weight = (next++)->value;
    const Tensor bias = layer.bias ? (next++)->value : Tensor();
    x = linear(cx, batch, dropped(cx, batch, x, i), layer, weight, bias);
    if (layer.norm.empty()) continue;
    const Tensor& gamma = (next++)->value;
    const Tensor& beta = (next++)->value;
    x = normed(cx, batch, x, gamma, beta);
  }
  return x;
}

Tensor HeadLayers::dropped(Context& cx, const TokenBatch& batch, const Tensor& x,
                           size_t layer) const {
  const double rate = head_.layers[layer].dropout;
  if (!batch.training || rate == 0) return x;
  const RandomKey key = batch.random.derive(kHeadDropout, layer);
  const int64_t features = x.shape()[-1];
  if (head_.pooled == PooledToken::kEvery) {
    return token_dropout(cx, rank_, batch, x, rate, key, {{0, batch.own_tokens}, features});
  }
  return ops::dropout(cx, x, rate, key, {{batch.rows, features}, {batch.first_row, 0}});
}

Tensor HeadLayers::normed(Context& cx, const TokenBatch& batch, const Tensor& x,
                          const Tensor& gamma, const Tensor& beta) const {
  if (rank_.blocks == 0) return ops::layer_norm(cx, x, gamma, beta, head_.epsilon);
  const auto same = [&](double value) { return Tensor::full(cx.allocator, gamma.shape(), value); };
  const Tensor y =
      ops::layer_norm(cx, ops::cast(cx, x, DType::kF32), same(1), same(0), head_.epsilon);
  const auto axis = parallel::blocked_axis(rank_, batch.ids.elements());
  return ops::cast(cx, parallel::blocked_affine(cx, axis, y, gamma, beta), x.dtype());
}

Tensor HeadLayers::linear(Context& cx, const TokenBatch& batch, const Tensor& x,
                          const HeadLayer& layer, const Tensor& weight, const Tensor& bias) const {
  if (rank_.blocks == 0) {
    return ops::linear(cx, x, weight, bias, ops::WeightLayout::kOutIn, layer.activation);
  }
  return parallel::blocked_linear(
      cx, parallel::blocked_axis(rank_, batch.ids.elements()), x, weight, bias,
      {.layout = ops::WeightLayout::kOutIn, .activation = layer.activation});
}

}  // namespace weft
