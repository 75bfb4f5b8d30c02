// Layer normalization (Ba et al. 2016). Numerics: statistics in the tensor's dtype, two passes; of
// bf16 rows statistics and the gradients of gamma and beta are fp32, and so may gamma and beta be.
#include <array>

#include "kernels/cpu/norms.h"
#include "kernels/cpu/past_caches.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/row_partials.h"

namespace weft::ops {
namespace {

// Inputs: x, dy, gamma, mean, rstd. Outputs: dx, dgamma, dbeta.
class LayerNormBackward final : public Kernel {
 public:
  std::string_view name() const override { return "layer_norm_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    const Tensor gamma = wide(cx, inputs[2]);
    const RowPartials parts(cx, x.dim(0));
    const int64_t partials = parts.count(), width = x.dim(1);
    // [2, partials, H]: sums over runs of rows, for gamma and for beta.
    Tensor sums = Tensor::zeros(cx.allocator, Shape{2, partials, width}, gamma.dtype());
    dispatch_rows(x.dtype(), [&]<typename T>() {
      using W = Wide<T>;
      const W *mean = inputs[3].data<W>(), *rstd = inputs[4].data<W>();
      T* dx = outputs[0].data<T>();
      cx.pool.parallel_for(partials, 1, [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(x.bytes());
        for (int64_t partial = begin; partial < end; ++partial) {
          W* const to = sums.data<W>() + partial * width;
          const auto [row, count] = parts.of(partial);
          const int64_t at = row * width;
          cpu::norms<T>().layer_norm_backward(x.data<T>() + at, dy.data<T>() + at, gamma.data<W>(),
                                              mean + row, rstd + row, past, count, width, dx + at,
                                              to, to + partials * width);
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
    cuda::backend(cx).layer_norm_backward(cx.block_count, inputs[0], inputs[1], inputs[2],
                                          inputs[3], inputs[4], outputs[0], outputs[1], outputs[2]);
  }
};

// Inputs: x [..., H], gamma [H], beta [H]. Outputs: y, and mean and rstd of each row.
class LayerNorm final : public Op {
 public:
  explicit LayerNorm(double epsilon) : epsilon_(epsilon) {}
  std::string_view name() const override { return "layer_norm"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  bool takes_weights_in_single() const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor& x = inputs[0];
    WEFT_CHECK(x.shape().dims() >= 1 && inputs[1].shape() == Shape{x.shape()[-1]} &&
                   inputs[2].shape() == inputs[1].shape() && scales(inputs[1], x) &&
                   scales(inputs[2], x),
               "layer_norm of {} with gamma {} and beta {}", x.shape().to_string(),
               inputs[1].shape().to_string(), inputs[2].shape().to_string());
    const Shape rows{row_count(x.shape())};
    const DType statistics = gradient_dtype(x.dtype());
    return {x.spec(), {rows, statistics}, {rows, statistics}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]), gamma = wide(cx, inputs[1]);
    const Tensor beta = wide(cx, inputs[2]);
    const int64_t width = x.dim(1);
    dispatch_rows(x.dtype(), [&]<typename T>() {
      using W = Wide<T>;
      T* y = outputs[0].data<T>();
      W *mean = outputs[1].data<W>(), *rstd = outputs[2].data<W>();
      cx.pool.parallel_for(x.dim(0), 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(x.bytes());
        const int64_t at = begin * width;
        cpu::norms<T>().layer_norm(x.data<T>() + at, gamma.data<W>(), beta.data<W>(),
                                   static_cast<W>(epsilon_), past, end - begin, width, y + at,
                                   mean + begin, rstd + begin);
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
    const DType summed = gradient_dtype(saved[1].dtype());
    std::vector<Tensor> grads = {Tensor::empty(cx.allocator, saved[0].shape(), saved[0].dtype()),
                                 Tensor::empty(cx.allocator, saved[1].shape(), summed),
                                 Tensor::empty(cx.allocator, saved[1].shape(), summed)};
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
