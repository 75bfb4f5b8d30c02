#include "kernels/attention/local.h"

#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"

namespace weft::attention {
namespace {

// first, first + 1, .. of `dtype`; fp32 holds them up to 2^24.
Tensor counted(Context& cx, int64_t count, int64_t first, DType dtype) {
  std::vector<double> numbers;
  for (int64_t i = 0; i < count; ++i) numbers.push_back(static_cast<double>(first + i));
  return ops::cast(cx, Tensor::from<double>(cx.allocator, Shape{count}, numbers), dtype);
}

Tensor with_column(Context& cx, const Tensor& x) {
  Shape shape = x.shape();
  shape.push_back(1);
  return ops::reshape(cx, x, shape);
}

// apart: key - position. 1 where it is within the window.
Tensor near(Context& cx, const Tensor& apart, double half_width) {
  WEFT_CHECK(half_width > 0, "a window of half width {}", half_width);
  const Tensor bound = Tensor::full(cx.allocator, Shape{}, half_width, apart.dtype());
  return ops::compare(cx, ops::abs(cx, apart.detach()), bound, ops::Comparison::kLessEqual);
}

}  // namespace

Attended local_monotonic(Context& cx, const Tensor& scores, const Tensor& values, double half_width,
                         const Tensor& visible, int64_t first_query) {
  const Tensor query = counted(cx, scores.dim(-2), first_query, DType::kF32);
  const Tensor key = counted(cx, scores.dim(-1), 0, DType::kF32);
  const Tensor apart = ops::subtract(cx, key, with_column(cx, query));
  return attend(cx, hide(cx, scores, near(cx, apart, half_width)), values, visible);
}

Attended local_predictive(Context& cx, const Tensor& scores, const Tensor& values,
                          const Tensor& position, double half_width, const Tensor& visible) {
  const DType dtype = sum_dtype(position.dtype());
  const Tensor apart = ops::subtract(cx, counted(cx, scores.dim(-1), 0, dtype),
                                     with_column(cx, ops::cast(cx, position, dtype)));
  const Tensor softmax = weights_of(cx, hide(cx, scores, near(cx, apart, half_width)), visible);
  const double slope = -2 / (half_width * half_width);
  const Tensor bell = ops::exp(cx, ops::scale(cx, ops::square(cx, apart), slope));
  const Tensor weights = ops::cast(cx, ops::multiply(cx, softmax, bell), scores.dtype());
  return {ops::matmul(cx, weights, values), weights};
}

Tensor predicted_position(Context& cx, const Tensor& q, const Tensor& weight, const Tensor& v,
                          const Tensor& lengths) {
  WEFT_CHECK(v.shape() == Shape{weight.dim(0)} && lengths.shape() == Shape{q.dim(0)},
             "positions of {} by v {} and lengths {}", q.shape().to_string(), v.shape().to_string(),
             lengths.shape().to_string());
  const Tensor hidden =
      ops::linear(cx, q, weight, Tensor(), ops::WeightLayout::kOutIn, ops::Activation::kTanh);
  const Tensor logits = ops::matmul(cx, hidden, with_column(cx, v));
  const DType dtype = sum_dtype(q.dtype());
  const Tensor share = ops::activate(cx, ops::cast(cx, logits, dtype), ops::Activation::kSigmoid);
  const Tensor scaled =
      ops::multiply(cx, share, with_column(cx, with_column(cx, ops::cast(cx, lengths, dtype))));
  return ops::reshape(cx, scaled, Shape{q.dim(0), q.dim(1)});
}

Tensor window_attention(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                        double scale, int64_t width, bool causal) {
  Parameters parameters{.scale = scale};
  parameters.visibility = {.causal = causal, .window_left = width, .window_right = width};
  return scaled_dot_product(cx, q, k, v, parameters);
}

// A block is a document of its own.
Tensor block_attention(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                       int64_t length, bool causal) {
  WEFT_CHECK(length > 0 && q.dim(2) == k.dim(2), "blocks of {} tokens of {} and {}", length,
             q.dim(2), k.dim(2));
  std::vector<int64_t> block;
  for (int64_t row = 0; row < q.dim(0); ++row) {
    for (int64_t i = 0; i < q.dim(2); ++i) block.push_back(i / length);
  }
  const Tensor blocks = Tensor::from<int64_t>(cx.allocator, Shape{q.dim(0), q.dim(2)}, block);
  Parameters parameters{.scale = scale};
  parameters.visibility.causal = causal;
  parameters.visibility.query_document = parameters.visibility.key_document = blocks;
  return scaled_dot_product(cx, q, k, v, parameters);
}

}  // namespace weft::attention
