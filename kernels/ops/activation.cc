#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

static_assert(static_cast<int>(Activation::kSigmoid) == static_cast<int>(cpu::Curve::kSigmoid));
constexpr int64_t kGrain = 4096;  // elements

class ActivateBackward final : public Kernel {
 public:
  explicit ActivateBackward(Activation kind) : kind_(kind) {}
  std::string_view name() const override { return "activate_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    dispatch_rows(x.dtype(), [&]<typename T>() {
      const T *from = x.data<T>(), *grad = dy.data<T>();
      T* to = outputs[0].data<T>();
      cx.pool.parallel_for(x.elements(), kGrain, [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(outputs[0].bytes());
        cpu::rows<T>().curve_backward(static_cast<cpu::Curve>(kind_), from + begin, grad + begin,
                                      {to + begin, past}, end - begin);
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).activate_backward(kind_, inputs[0], inputs[1], outputs[0]);
  }

 private:
  const Activation kind_;
};

class Activate final : public Op {
 public:
  explicit Activate(Activation kind) : kind_(kind) {}
  std::string_view name() const override { return "activate"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    dispatch_rows(x.dtype(), [&]<typename T>() {
      const T* from = x.data<T>();
      T* to = outputs[0].data<T>();
      cx.pool.parallel_for(x.elements(), kGrain, [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(outputs[0].bytes());
        cpu::rows<T>().curve(static_cast<cpu::Curve>(kind_), from + begin, {to + begin, past},
                             end - begin);
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).activate(kind_, inputs[0], outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs[0]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    return {run_kernel(cx, ActivateBackward(kind_), {saved[0], output_grads[0]}, saved[0].spec())};
  }

 private:
  const Activation kind_;
};

}  // namespace

Tensor activate(Context& cx, const Tensor& x, Activation kind) {
  return run<Activate>(cx, {x}, kind);
}

}  // namespace weft::ops
