#include <numeric>

#include "kernels/cpu/norms.h"
#include "kernels/cpu/past_caches.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/norms.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

// Inputs: y, dy.
class LogSoftmaxBackward final : public Kernel {
 public:
  std::string_view name() const override { return "log_softmax_backward"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).log_softmax_backward(inputs[0], inputs[1], outputs[0]);
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor y = as_rows(cx, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    const int64_t width = y.dim(1);
    dispatch_rows(y.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(y.dim(0), 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(y.bytes());
        for (int64_t at = begin * width; at < end * width; at += width) {
          cpu::norms<T>().log_softmax_backward(y.data<T>() + at, dy.data<T>() + at, past, width,
                                               outputs[0].data<T>() + at);
        }
      });
    });
  }
};

// Over the last dim.
class LogSoftmax final : public Op {
 public:
  std::string_view name() const override { return "log_softmax"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).log_softmax(inputs[0], outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]);
    const int64_t width = x.dim(1);
    dispatch_rows(x.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(x.dim(0), 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(x.bytes());
        const int64_t at = begin * width;
        cpu::norms<T>().log_softmax(x.data<T>() + at, past, end - begin, width,
                                    outputs[0].data<T>() + at);
      });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor> outputs) override {
    return {outputs[0].detach()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    return {run_kernel(cx, LogSoftmaxBackward(), {saved[0], output_grads[0]}, saved[0].spec())};
  }
};

}  // namespace

Tensor log_softmax(Context& cx, const Tensor& x, int dim) {
  const int at = positive_dim(dim, x.shape()), last = x.shape().dims() - 1;
  if (at == last) return run<LogSoftmax>(cx, {x});
  std::vector<int> order(static_cast<size_t>(last + 1));
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[static_cast<size_t>(at)], order[static_cast<size_t>(last)]);
  const Tensor y = run<LogSoftmax>(cx, {permute(cx, x, order)});
  return contiguous(cx, permute(cx, y, order));
}

}  // namespace weft::ops
