#include "kernels/attention/linear.h"

#include <array>

#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"

namespace weft::attention {
namespace {

constexpr int kTurned[] = {0, 1, 3, 2};

// Keys that are padding count for nothing: their features become 0.
Tensor without_padding(Context& cx, const Tensor& features, const Tensor& key_valid) {
  if (!key_valid) return features;
  const Shape shape{key_valid.dim(0), 1, key_valid.dim(1), 1};
  const Tensor nothing = Tensor::zeros(cx.allocator, Shape{}, features.dtype());
  return ops::where(cx, ops::reshape(cx, key_valid, shape), features, nothing);
}

// x with a last feature of ones, whose sum is the denominator.
Tensor with_ones(Context& cx, const Tensor& x) {
  Shape shape = x.shape();
  shape[-1] = 1;
  const std::array parts = {x, Tensor::full(cx.allocator, shape, 1, x.dtype())};
  return ops::concat(cx, parts, -1);
}

}  // namespace

Tensor linear_attention(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v, bool causal,
                        const Tensor& key_valid) {
  WEFT_CHECK(!causal || q.dim(2) == k.dim(2), "causal: {} queries of {} keys", q.dim(2), k.dim(2));
  const Tensor query = ops::elu_plus_one(cx, q);
  const Tensor key = without_padding(cx, ops::elu_plus_one(cx, k), key_valid);
  const Tensor value = with_ones(cx, v);
  const Tensor sums =
      causal ? prefix_product(cx, query, key, value)
             : ops::matmul(cx, query, ops::matmul(cx, ops::permute(cx, key, kTurned), value));
  const std::array widths = {v.dim(-1), int64_t{1}};
  const std::vector<Tensor> parts = ops::split(cx, sums, -1, widths);
  const Tensor zero = Tensor::zeros(cx.allocator, Shape{}, sums.dtype());
  const Tensor one = Tensor::full(cx.allocator, Shape{}, 1, sums.dtype());
  const Tensor seen = ops::compare(cx, parts[1].detach(), zero, ops::Comparison::kNotEqual);
  return ops::divide(cx, parts[0], ops::where(cx, seen, parts[1], one));
}

}  // namespace weft::attention
