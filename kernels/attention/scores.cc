#include "kernels/attention/scores.h"

#include <array>
#include <limits>
#include <vector>

#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"

namespace weft::attention {
namespace {

using ops::Activation;
using ops::WeightLayout;

constexpr int kTurned[] = {0, 2, 1};

Tensor projected(Context& cx, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return ops::linear(cx, x, weight, bias, WeightLayout::kOutIn);
}

// g v / |v|
Tensor normalized(Context& cx, const Tensor& v, const Tensor& gain) {
  const Tensor length = ops::sqrt(cx, ops::sum(cx, ops::square(cx, v), 0, true));
  return ops::multiply(cx, v, ops::divide(cx, gain, length));
}

}  // namespace

Tensor hide(Context& cx, const Tensor& scores, const Tensor& visible) {
  if (!visible) return scores;
  constexpr double kNothing = -std::numeric_limits<double>::infinity();
  return ops::where(cx, visible, scores,
                    Tensor::full(cx.allocator, Shape{}, kNothing, scores.dtype()));
}

Tensor weights_of(Context& cx, const Tensor& scores, const Tensor& visible) {
  return ops::softmax(cx, hide(cx, scores, visible), -1);
}

Attended attend(Context& cx, const Tensor& scores, const Tensor& values, const Tensor& visible) {
  const Tensor weights = weights_of(cx, scores, visible);
  return {ops::matmul(cx, weights, values), weights};
}

Tensor additive_scores(Context& cx, const Tensor& q, const Tensor& k, const Additive& parameters) {
  const Tensor& v = parameters.v;
  return compared(cx, projected(cx, q, parameters.query, parameters.bias),
                  projected(cx, k, parameters.key, Tensor()),
                  parameters.gain ? normalized(cx, v, parameters.gain) : v);
}

Tensor dot_scores(Context& cx, const Tensor& q, const Tensor& k) {
  return ops::matmul(cx, q, ops::permute(cx, k, kTurned));
}

Tensor general_scores(Context& cx, const Tensor& q, const Tensor& k, const Tensor& weight) {
  return dot_scores(cx, ops::linear(cx, q, weight, Tensor(), WeightLayout::kInOut), k);
}

// W [q; k] is the sum of two products, so that a query is projected once, not once for each key.
Tensor concat_scores(Context& cx, const Tensor& q, const Tensor& k, const Tensor& weight,
                     const Tensor& v) {
  const std::array widths = {q.dim(-1), k.dim(-1)};
  const std::vector<Tensor> parts = ops::split(cx, weight, 1, widths);
  return compared(cx, projected(cx, q, parts[0], Tensor()), projected(cx, k, parts[1], Tensor()),
                  v);
}

Tensor location_scores(Context& cx, const Tensor& q, const Tensor& weight, int64_t keys) {
  return projected(cx, q, ops::slice(cx, weight, 0, 0, keys), Tensor());
}

Tensor attentional_state(Context& cx, const Tensor& context, const Tensor& q,
                         const Tensor& weight) {
  const std::array parts = {context, q};
  return ops::linear(cx, ops::concat(cx, parts, -1), weight, Tensor(), WeightLayout::kOutIn,
                     Activation::kTanh);
}

}  // namespace weft::attention
