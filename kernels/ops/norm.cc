// Layer normalization (Ba et al. 2016). Numerics: statistics in the tensor's dtype, two passes.
#include <algorithm>
#include <array>

#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

constexpr int64_t kRowsOfPartial = 64;  // rows whose gamma and beta gradients are summed one by one

// Inputs: x, dy, gamma, mean, rstd. Outputs: dx, dgamma, dbeta.
class LayerNormBackward final : public Kernel {
 public:
  std::string_view name() const override { return "layer_norm_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    const Tensor gamma = as_contiguous(cx.pool, inputs[2]);
    const int64_t count = x.dim(0), width = x.dim(1);
    const int64_t partials = (count + kRowsOfPartial - 1) / kRowsOfPartial;
    // [2, partials, H]: sums over runs of rows, for gamma and for beta.
    Tensor sums = Tensor::zeros(cx.allocator, Shape{2, partials, width}, x.dtype());
    dispatch_floating(x.dtype(), [&]<typename T>() {
      const T *mean = inputs[3].data<T>(), *rstd = inputs[4].data<T>();
      T* dx = outputs[0].data<T>();
      cx.pool.parallel_for(partials, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin * kRowsOfPartial; row < std::min(count, end * kRowsOfPartial);
             ++row) {
          const int64_t at = row * width, partial = row / kRowsOfPartial * width;
          cpu::rows<T>().layer_norm_backward(
              x.data<T>() + at, dy.data<T>() + at, gamma.data<T>(), mean[row], rstd[row], width,
              dx + at, sums.data<T>() + partial, sums.data<T>() + partials * width + partial);
        }
      });
    });
    const std::array<int64_t, 2> rows{width, 1};
    for (int which = 0; which < 2; ++which) {
      const Tensor part = sums.view(Shape{partials, width}, rows, which * partials * width);
      sum_middle(cx, part, {1, partials, width}, 1, outputs[static_cast<size_t>(1 + which)]);
    }
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).layer_norm_backward(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4],
                                          outputs[0], outputs[1], outputs[2]);
  }
};

// Inputs: x [..., H], gamma [H], beta [H]. Outputs: y, and mean and rstd of each row.
class LayerNorm final : public Op {
 public:
  explicit LayerNorm(double epsilon) : epsilon_(epsilon) {}
  std::string_view name() const override { return "layer_norm"; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor& x = inputs[0];
    WEFT_CHECK(x.shape().dims() >= 1 && inputs[1].shape() == Shape{x.shape()[-1]} &&
                   inputs[2].shape() == inputs[1].shape() && inputs[1].dtype() == x.dtype(),
               "layer_norm of {} with gamma {} and beta {}", x.shape().to_string(),
               inputs[1].shape().to_string(), inputs[2].shape().to_string());
    const Shape rows{row_count(x.shape())};
    return {x.spec(), {rows, x.dtype()}, {rows, x.dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]), gamma = as_contiguous(cx.pool, inputs[1]);
    const Tensor beta = as_contiguous(cx.pool, inputs[2]);
    const int64_t width = x.dim(1);
    dispatch_floating(x.dtype(), [&]<typename T>() {
      T *y = outputs[0].data<T>(), *mean = outputs[1].data<T>(), *rstd = outputs[2].data<T>();
      cx.pool.parallel_for(x.dim(0), 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          cpu::rows<T>().layer_norm(x.data<T>() + row * width, gamma.data<T>(), beta.data<T>(),
                                    static_cast<T>(epsilon_), width, y + row * width, mean + row,
                                    rstd + row);
        }
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).layer_norm(inputs[0], inputs[1], inputs[2], epsilon_, outputs[0], outputs[1],
                                 outputs[2]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    return {inputs[0], inputs[1], outputs[1].detach(), outputs[2].detach()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads = {Tensor::empty(cx.allocator, saved[0].shape(), saved[0].dtype()),
                                 Tensor::empty(cx.allocator, saved[1].shape(), saved[1].dtype()),
                                 Tensor::empty(cx.allocator, saved[1].shape(), saved[1].dtype())};
    LayerNormBackward kernel;
    const std::array inputs = {saved[0], output_grads[0], saved[1], saved[2], saved[3]};
    run_kernel(cx, kernel, inputs, grads);
    return grads;
  }

 private:
  const double epsilon_;
};

}  // namespace

Tensor layer_norm(Context& cx, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                  double epsilon) {
  return apply(cx, std::make_unique<LayerNorm>(epsilon), {x, gamma, beta})[0];
}

}  // namespace weft::ops
