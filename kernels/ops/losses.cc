// Losses composed of other ops.
#include "kernels/ops/losses.h"

#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

void check_pair(std::string_view name, const Tensor& x, const Tensor& target) {
  WEFT_CHECK(x.shape() == target.shape(), "{} of {} against {}", name, x.shape().to_string(),
             target.shape().to_string());
}

Tensor scalar(Context& cx, double value, const Tensor& like) {
  return Tensor::full(cx.allocator, Shape{}, value, like.dtype());
}

}  // namespace

Tensor squared_error_sum(Context& cx, const Tensor& x, const Tensor& target) {
  check_pair("squared error", x, target);
  return sum_all(cx, square(cx, subtract(cx, x, target)));
}

Tensor absolute_error_sum(Context& cx, const Tensor& x, const Tensor& target) {
  check_pair("absolute error", x, target);
  return sum_all(cx, abs(cx, subtract(cx, x, target)));
}

// With c = clamp(e, -delta, delta): c (e - c / 2) is both branches.
Tensor huber_sum(Context& cx, const Tensor& x, const Tensor& target, double delta) {
  check_pair("huber", x, target);
  const Tensor error = subtract(cx, x, target);
  const Tensor inner = clamp(cx, error, -delta, delta);
  return sum_all(cx, multiply(cx, inner, subtract(cx, error, scale(cx, inner, 0.5))));
}

// -(w t log s + (1 - t) log(1 - s)) = (1 - t) x + (1 + (w - 1) t) softplus(-x).
Tensor binary_cross_entropy_sum(Context& cx, const Tensor& x, const Tensor& target,
                                const Tensor& positive_weight) {
  check_pair("binary cross-entropy", x, target);
  const Tensor one = scalar(cx, 1, x);
  Tensor low = softplus(cx, negate(cx, x));
  if (positive_weight) {
    const Tensor extra = multiply(cx, subtract(cx, positive_weight, one), target);
    low = multiply(cx, add(cx, extra, one), low);
  }
  return sum_all(cx, add(cx, multiply(cx, subtract(cx, one, target), x), low));
}

Tensor kl_divergence_sum(Context& cx, const Tensor& x, const Tensor& target) {
  check_pair("divergence", x, target);
  const Tensor zero = scalar(cx, 0, target), one = scalar(cx, 1, target);
  const Tensor positive = compare(cx, target, zero, Comparison::kGreater);
  const Tensor logs = log(cx, where(cx, positive, target, one));
  return sum_all(cx, multiply(cx, target, subtract(cx, logs, where(cx, positive, x, zero))));
}

}  // namespace weft::ops
