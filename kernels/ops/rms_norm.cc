// RMS normalization (Zhang and Sennrich 2019). Numerics: as layer normalization's (norm.cc).
#include <array>

#include "kernels/cpu/norms.h"
#include "kernels/cpu/past_caches.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/norms.h"
#include "kernels/ops/row_partials.h"

namespace weft::ops {
namespace {

// Inputs: x, dy, gamma, rstd of each row; outputs: dx, dgamma.
class RmsNormBackward final : public Kernel {
 public:
  std::string_view name() const override { return "rms_norm_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    const Tensor gamma = wide(cx, inputs[2]);
    const RowPartials parts(cx, x.dim(0));
    const int64_t partials = parts.count(), width = x.dim(1);
    const Tensor sums = Tensor::zeros(cx.allocator, Shape{partials, width}, gamma.dtype());
    dispatch_rows(x.dtype(), [&]<typename T>() {
      using W = Wide<T>;
      const W* rstd = inputs[3].data<W>();
      T* dx = outputs[0].data<T>();
      cx.pool.parallel_for(partials, 1, [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(x.bytes());
        for (int64_t partial = begin; partial < end; ++partial) {
          const auto [row, count] = parts.of(partial);
          const int64_t at = row * width;
          cpu::norms<T>().rms_norm_backward(x.data<T>() + at, dy.data<T>() + at, gamma.data<W>(),
                                            rstd + row, past, count, width, dx + at,
                                            sums.data<W>() + partial * width);
        }
      });
    });
    sum_middle(cx, sums, {1, partials, width}, 1, outputs[1]);
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).rms_norm_backward(cx.block_count, inputs[0], inputs[1], inputs[2], inputs[3],
                                        outputs[0], outputs[1]);
  }
};

// Inputs: x [..., H], gamma [H]. Outputs: y, and rstd of each row.
class RmsNorm final : public Op {
 public:
  explicit RmsNorm(double epsilon) : epsilon_(epsilon) {}
  std::string_view name() const override { return "rms_norm"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  bool takes_weights_in_single() const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor& x = inputs[0];
    WEFT_CHECK(
        x.shape().dims() >= 1 && inputs[1].shape() == Shape{x.dim(-1)} && scales(inputs[1], x),
        "rms_norm of {} with gamma {}", x.shape().to_string(), inputs[1].shape().to_string());
    return {x.spec(), {Shape{row_count(x.shape())}, gradient_dtype(x.dtype())}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]), gamma = wide(cx, inputs[1]);
    const int64_t width = x.dim(1);
    dispatch_rows(x.dtype(), [&]<typename T>() {
      using W = Wide<T>;
      T* y = outputs[0].data<T>();
      W* rstd = outputs[1].data<W>();
      cx.pool.parallel_for(x.dim(0), 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(x.bytes());
        const int64_t at = begin * width;
        cpu::norms<T>().rms_norm(x.data<T>() + at, gamma.data<W>(), static_cast<W>(epsilon_), past,
                                 end - begin, width, y + at, rstd + begin);
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).rms_norm(inputs[0], inputs[1], epsilon_, outputs[0], outputs[1]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    return {inputs[0], inputs[1], outputs[1].detach()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const DType summed = gradient_dtype(saved[1].dtype());
    std::vector<Tensor> grads{Tensor::empty(cx.allocator, saved[0].shape(), saved[0].dtype()),
                              Tensor::empty(cx.allocator, saved[1].shape(), summed)};
    RmsNormBackward kernel;
    const std::array inputs = {saved[0], output_grads[0], saved[1], saved[2]};
    run_kernel(cx, kernel, inputs, grads);
    return grads;
  }

 private:
  const double epsilon_;
};

}  // namespace

Tensor rms_norm(Context& cx, const Tensor& x, const Tensor& gamma, double epsilon) {
  return apply(cx, std::make_unique<RmsNorm>(epsilon), {x, gamma})[0];
}

}  // namespace weft::ops
