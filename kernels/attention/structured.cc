#include "kernels/attention/structured.h"

#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"

namespace weft::attention {
namespace {

constexpr int kTurned[] = {0, 2, 1};

Tensor identity(Context& cx, int64_t extent, DType dtype) {
  std::vector<double> elements(static_cast<size_t>(extent * extent));
  for (int64_t i = 0; i < extent; ++i) elements[static_cast<size_t>(i * (extent + 1))] = 1;
  return ops::cast(cx, Tensor::from<double>(cx.allocator, Shape{extent, extent}, elements), dtype);
}

}  // namespace

Attended structured_self_attention(Context& cx, const Tensor& h, const Tensor& w1, const Tensor& w2,
                                   const Tensor& valid) {
  const Tensor hidden =
      ops::linear(cx, h, w1, Tensor(), ops::WeightLayout::kOutIn, ops::Activation::kTanh);
  const Tensor by_token = ops::linear(cx, hidden, w2, Tensor(), ops::WeightLayout::kOutIn);
  const Tensor visible =
      valid ? ops::reshape(cx, valid, Shape{valid.dim(0), 1, valid.dim(1)}) : valid;
  return attend(cx, ops::permute(cx, by_token, kTurned), h, visible);
}

Tensor structured_penalty(Context& cx, const Tensor& weights) {
  const Tensor a = ops::cast(cx, weights, sum_dtype(weights.dtype()));
  const Tensor overlap = ops::matmul(cx, a, ops::permute(cx, a, kTurned));
  const Tensor rest = ops::subtract(cx, overlap, identity(cx, a.dim(1), a.dtype()));
  return ops::sum_all(cx, ops::square(cx, rest));
}

}  // namespace weft::attention
