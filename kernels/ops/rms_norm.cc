#include <algorithm>

#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/norms.h"

namespace weft::ops {
namespace {

constexpr int64_t kRowsOfPartial = 64;  // rows whose gamma gradients are summed one by one

// Inputs: x, dy, gamma, rstd of each row; outputs: dx, dgamma.
class RmsNormBackward final : public Kernel {
 public:
  std::string_view name() const override { return "rms_norm_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    const Tensor gamma = as_contiguous(cx.pool, inputs[2]);
    const int64_t count = x.dim(0), width = x.dim(1);
    const int64_t partials = (count + kRowsOfPartial - 1) / kRowsOfPartial;
    const Tensor sums = Tensor::zeros(cx.allocator, Shape{partials, width}, x.dtype());
    dispatch_floating(x.dtype(), [&]<typename T>() {
      const T* rstd = inputs[3].data<T>();
      cx.pool.parallel_for(partials, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin * kRowsOfPartial; row < std::min(count, end * kRowsOfPartial);
             ++row) {
          const int64_t at = row * width;
          cpu::vectors<T>().rms_norm_backward(x.data<T>() + at, dy.data<T>() + at, gamma.data<T>(),
                                              rstd[row], width, outputs[0].data<T>() + at,
                                              sums.data<T>() + row / kRowsOfPartial * width);
        }
      });
    });
    sum_middle(cx, sums, {1, partials, width}, 1, outputs[1]);
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).rms_norm_backward(inputs[0], inputs[1], inputs[2], inputs[3], outputs[0],
                                        outputs[1]);
  }
};

// Inputs: x [..., H], gamma [H]. Outputs: y, and rstd of each row.
class RmsNorm final : public Op {
 public:
  explicit RmsNorm(double epsilon) : epsilon_(epsilon) {}
  std::string_view name() const override { return "rms_norm"; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor& x = inputs[0];
    WEFT_CHECK(
        x.shape().dims() >= 1 && inputs[1].spec() == (TensorSpec{Shape{x.dim(-1)}, x.dtype()}),
        "rms_norm of {} with gamma {}", x.shape().to_string(), inputs[1].shape().to_string());
    return {x.spec(), {Shape{row_count(x.shape())}, gradient_dtype(x.dtype())}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]), gamma = as_contiguous(cx.pool, inputs[1]);
    const int64_t width = x.dim(1);
    dispatch_floating(x.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(x.dim(0), 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          cpu::vectors<T>().rms_norm(
              x.data<T>() + row * width, gamma.data<T>(), static_cast<T>(epsilon_), width,
              outputs[0].data<T>() + row * width, outputs[1].data<T>() + row);
        }
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
