#include <numeric>
#include <type_traits>
#include <vector>

#include "kernels/cpu/norms.h"
#include "kernels/cpu/past_caches.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

class SoftmaxBackward final : public Kernel {
 public:
  std::string_view name() const override { return "softmax_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor y = as_rows(cx, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    const int64_t width = y.dim(1);
    dispatch_rows(y.dtype(), [&]<typename T>() {
      T* dx = outputs[0].data<T>();
      cx.pool.parallel_for(y.dim(0), 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(y.bytes());
        for (int64_t at = begin * width; at < end * width; at += width) {
          cpu::norms<T>().softmax_backward(y.data<T>() + at, dy.data<T>() + at, past, width,
                                           dx + at);
        }
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).softmax_backward(inputs[0], inputs[1], outputs[0]);
  }
};

// Of a row of exponentials: a vector that lies in two lines of the cache takes two turns.
template <typename T>
struct alignas(64) Line {
  static constexpr int64_t kCount = 32;  // norms.h
  static constexpr size_t holding(int64_t n) {
    return static_cast<size_t>((n + kCount - 1) / kCount);
  }
  Wide<T> values[kCount];
};

// Over the last dim. A row of nothing but -infinity gives zeros.
class Softmax final : public Op {
 public:
  std::string_view name() const override { return "softmax"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]);
    const int64_t width = x.dim(1);
    dispatch_rows(x.dtype(), [&]<typename T>() {
      constexpr bool kHalf = !std::is_same_v<T, Wide<T>>;
      const T* from = x.data<T>();
      T* to = outputs[0].data<T>();
      cx.pool.parallel_for(x.dim(0), 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(x.bytes());
        std::vector<Line<T>> apart(past || kHalf ? Line<T>::holding(width) : 0);
        const int64_t at = begin * width;
        cpu::norms<T>().softmax(from + at, apart.empty() ? nullptr : apart.front().values, past,
                                end - begin, width, to + at);
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).softmax(inputs[0], outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor> outputs) override {
    return {outputs[0].detach()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    return {run_kernel(cx, SoftmaxBackward(), {saved[0], output_grads[0]}, saved[0].spec())};
  }
};

}  // namespace

Tensor softmax(Context& cx, const Tensor& x, int dim) {
  const int at = positive_dim(dim, x.shape()), last = x.shape().dims() - 1;
  if (at == last) return run<Softmax>(cx, {x});
  std::vector<int> order(static_cast<size_t>(last + 1));
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[static_cast<size_t>(at)], order[static_cast<size_t>(last)]);
  const Tensor y = run<Softmax>(cx, {permute(cx, x, order)});
  return contiguous(cx, permute(cx, y, order));
}

}  // namespace weft::ops
