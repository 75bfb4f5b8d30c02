#include "kernels/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention/block.h"
#include "kernels/cpu/rows.h"
#include "kernels/ops/common.h"

namespace weft::attention {
namespace {

// Inputs: q, k, v. Outputs: the attention, and log-sum-exp [B, N, Tq] of each query's scores.
class ScaledDotProduct final : public ops::ForwardOp {
 public:
  explicit ScaledDotProduct(const Parameters& parameters) : parameters_(parameters) {}
  std::string_view name() const override { return "scaled_dot_product"; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor& q = inputs[0];
    const Tensor output = empty_by_token(cx, q.shape(), q.dtype());
    const Tensor lse = Tensor::empty(cx.allocator, Shape{q.dim(0), q.dim(1), q.dim(2)}, q.dtype());
    forward_into(cx, q, inputs[1], inputs[2], parameters_, output, lse);
    return {output, lse};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    return {inputs[0], inputs[1], inputs[2], outputs[0].detach(), outputs[1].detach()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &d_output = output_grads[0];
    const Tensor delta = row_dots(cx, saved[3], d_output);
    const BlockGrads grads{empty_by_token(cx, q.shape(), q.dtype()),
                           empty_by_token(cx, k.shape(), k.dtype()),
                           empty_by_token(cx, v.shape(), v.dtype())};
    backward_into(cx, q, k, v, d_output, saved[4], delta, parameters_, grads);
    return {grads.q, grads.k, grads.v};
  }

 private:
  const Parameters parameters_;
};

}  // namespace

Tensor scaled_dot_product(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const Parameters& parameters) {
  return apply(cx, std::make_unique<ScaledDotProduct>(parameters), {q, k, v})[0];
}

Partial block_forward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                      const Parameters& parameters) {
  Partial partial{Tensor::empty(cx.allocator, q.shape(), q.dtype()),
                  Tensor::empty(cx.allocator, Shape{q.dim(0), q.dim(1), q.dim(2)}, q.dtype())};
  forward_into(cx, q, k, v, parameters, partial.output, partial.log_sum_exp);
  return partial;
}

// With the weights w = exp(lse - max): output := (w_a a + w_b b) / (w_a + w_b).
void merge(Context& cx, Partial& into, const Partial& other) {
  WEFT_CHECK(into.output.spec() == other.output.spec() && into.output.contiguous() &&
                 other.output.contiguous(),
             "merge of {} and {}", into.output.shape().to_string(),
             other.output.shape().to_string());
  const int64_t features = into.output.dim(3);
  dispatch_floating(into.output.dtype(), [&]<typename T>() {
    constexpr T kNothing = -std::numeric_limits<T>::infinity();
    T *lse_a = into.log_sum_exp.data<T>(), *out_a = into.output.data<T>();
    const T *lse_b = other.log_sum_exp.data<T>(), *out_b = other.output.data<T>();
    const int64_t grain = 1 + 4096 / (features + 1);
    cx.pool.parallel_for(into.log_sum_exp.elements(), grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T largest = std::max(lse_a[row], lse_b[row]);
        if (lse_b[row] == kNothing) continue;
        const T a = std::exp(lse_a[row] - largest), b = std::exp(lse_b[row] - largest);
        const T part_a = a / (a + b), part_b = b / (a + b);
        for (int64_t i = row * features; i < (row + 1) * features; ++i) {
          out_a[i] = part_a * out_a[i] + part_b * out_b[i];
        }
        lse_a[row] = largest + std::log(a + b);
      }
    });
  });
}

BlockGrads block_backward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const Tensor& d_output, const Tensor& log_sum_exp, const Tensor& delta,
                          const Parameters& parameters) {
  const BlockGrads grads{Tensor::empty(cx.allocator, q.shape(), q.dtype()),
                         Tensor::empty(cx.allocator, k.shape(), k.dtype()),
                         Tensor::empty(cx.allocator, v.shape(), v.dtype())};
  backward_into(cx, q, k, v, d_output, log_sum_exp, delta, parameters, grads);
  return grads;
}

}  // namespace weft::attention
