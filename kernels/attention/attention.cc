#include "kernels/attention/attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/attention/block.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"

namespace weft::attention {
namespace {

// In sum_dtype, as it is a term of a sum over ranks.
Tensor empty_table(Context& cx, const Tensor& like) {
  return Tensor::empty(cx.allocator, like.shape(), sum_dtype(like.dtype()));
}

// Inputs: q, k, v, then the bias, that by distance and the sinks where there are any. Outputs: the
// attention, and log-sum-exp [B, N, Tq] of each query's scores.
class ScaledDotProduct final : public ops::ForwardOp {
 public:
  explicit ScaledDotProduct(const Parameters& parameters)
      : parameters_(parameters),
        biased_(static_cast<bool>(parameters.bias)),
        by_distance_(static_cast<bool>(parameters.distance_bias)),
        sunk_(static_cast<bool>(parameters.sinks)) {
    parameters_.bias = parameters_.distance_bias = parameters_.sinks = Tensor();  // come as inputs
  }
  std::string_view name() const override { return "scaled_dot_product"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor &q = inputs[0], &v = inputs[2];
    const Shape lse_shape{q.dim(0), q.dim(1), q.dim(2)};
    const Tensor output =
        empty_by_token(cx, Shape{q.dim(0), q.dim(1), q.dim(2), v.dim(3)}, q.dtype());
    const Tensor lse = Tensor::empty(cx.allocator, lse_shape, sum_dtype(q.dtype()));
    forward_into(cx, q, inputs[1], v, with(inputs), output, lse);
    return {output, lse};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    std::vector<Tensor> saved(inputs.begin(), inputs.end());
    for (const Tensor& input : inputs) wanted_.push_back(input.requires_grad());
    saved.push_back(outputs[0].detach());
    saved.push_back(outputs[1].detach());
    return saved;
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &d_output = output_grads[0];
    const Tensor &output = saved[saved.size() - 2], &lse = saved.back();
    const Parameters parameters = with(saved.first(saved.size() - 2));
    const bool more = std::any_of(wanted_.begin() + 3, wanted_.end(), std::identity());  // of delta
    const Tensor delta = more ? row_dots(cx, output, d_output) : Tensor();
    const BlockGrads grads{
        empty_by_token(cx, q.shape(), q.dtype()), empty_by_token(cx, k.shape(), k.dtype()),
        empty_by_token(cx, v.shape(), v.dtype()),
        by_distance_ && wanted_[biased_ ? 4 : 3] ? empty_table(cx, parameters.distance_bias)
                                                 : Tensor()};
    backward_into(cx, q, k, v, output, d_output, lse, delta, parameters, grads);
    std::vector<Tensor> all{grads.q, grads.k, grads.v};
    if (biased_) {
      all.push_back(wanted_[3] ? bias_gradient(cx, q, k, v, d_output, lse, delta, parameters)
                               : Tensor());
    }
    if (by_distance_) all.push_back(grads.distance_bias);
    if (sunk_) {
      all.push_back(wanted_.back() ? sinks_gradient(cx, parameters.sinks, lse, delta) : Tensor());
    }
    return all;
  }

 private:
  Parameters with(std::span<const Tensor> inputs) const {
    Parameters parameters = parameters_;
    if (biased_) parameters.bias = inputs[3];
    if (by_distance_) parameters.distance_bias = inputs[biased_ ? 4 : 3];
    if (sunk_) parameters.sinks = inputs.back();
    return parameters;
  }

  Parameters parameters_;
  const bool biased_, by_distance_, sunk_;
  std::vector<bool> wanted_;
};

// With the weights w = exp(lse - max): output := (w_a a + w_b b) / (w_a + w_b), in place. Inputs:
// the other's output and log-sum-exp; outputs: ours.
class Merge final : public Kernel {
 public:
  std::string_view name() const override { return "attention_merge"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const int64_t features = outputs[0].dim(3);
    dispatch_floating(outputs[0].dtype(), [&]<typename T>() {
      constexpr T kNothing = -std::numeric_limits<T>::infinity();
      T *out_a = outputs[0].data<T>(), *lse_a = outputs[1].data<T>();
      const T *out_b = inputs[0].data<T>(), *lse_b = inputs[1].data<T>();
      const int64_t grain = 1 + 4096 / (features + 1);
      cx.pool.parallel_for(outputs[1].elements(), grain, [&](int64_t begin, int64_t end) {
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
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).attention_merge(outputs[0], outputs[1], inputs[0], inputs[1]);
  }
};

void check_block(const Parameters& parameters) {
  WEFT_CHECK(!parameters.bias && !parameters.sinks && !parameters.visibility.mask,
             "bias, sinks and mask belong to the whole, not to a block");
}

}  // namespace

Tensor scaled_dot_product(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const Parameters& parameters) {
  std::vector<Tensor> inputs{q, k, v};
  if (parameters.bias) inputs.push_back(parameters.bias);
  if (parameters.distance_bias) inputs.push_back(parameters.distance_bias);
  if (parameters.sinks) inputs.push_back(parameters.sinks);
  return apply(cx, std::make_unique<ScaledDotProduct>(parameters), std::move(inputs))[0];
}

Partial block_forward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                      const Parameters& parameters) {
  check_block(parameters);
  const DType dtype = sum_dtype(q.dtype());
  Partial partial{Tensor::empty(cx.allocator, Shape{q.dim(0), q.dim(1), q.dim(2), v.dim(3)}, dtype),
                  Tensor::empty(cx.allocator, Shape{q.dim(0), q.dim(1), q.dim(2)}, dtype)};
  forward_into(cx, q, k, v, parameters, partial.output, partial.log_sum_exp);
  return partial;
}

void merge(Context& cx, Partial& into, const Partial& other) {
  WEFT_CHECK(into.output.spec() == other.output.spec() && into.output.contiguous() &&
                 other.output.contiguous(),
             "merge of {} and {}", into.output.shape().to_string(),
             other.output.shape().to_string());
  Merge kernel;
  std::array outputs = {into.output, into.log_sum_exp};
  run_kernel(cx, kernel, std::array{other.output, other.log_sum_exp}, outputs);
}

BlockGrads block_backward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const Tensor& d_output, const Tensor& log_sum_exp, const Tensor& delta,
                          const Parameters& parameters) {
  check_block(parameters);
  const DType dtype = sum_dtype(q.dtype());
  const BlockGrads grads{
      Tensor::empty(cx.allocator, q.shape(), dtype), Tensor::empty(cx.allocator, k.shape(), dtype),
      Tensor::empty(cx.allocator, v.shape(), dtype),
      parameters.distance_bias ? empty_table(cx, parameters.distance_bias) : Tensor()};
  backward_into(cx, q, k, v, Tensor(), d_output, log_sum_exp, delta, parameters, grads);
  return grads;
}

}  // namespace weft::attention
