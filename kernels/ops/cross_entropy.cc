#include <algorithm>
#include <numeric>

#include "kernels/cpu/rows.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"
#include "proto/base/status.h"

namespace weft::ops {
namespace {

// Inputs: logits [..., V], labels [...]. Outputs: the sum, and log-sum-exp of each row.
class CrossEntropySum final : public Op {
 public:
  explicit CrossEntropySum(int64_t ignore_index) : ignore_index_(ignore_index) {}
  std::string_view name() const override { return "cross_entropy_sum"; }
  bool rounds(size_t) const override { return false; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Shape& logits = inputs[0].shape();
    WEFT_CHECK(logits.dims() >= 1 &&
                   Shape(logits.extents().first(static_cast<size_t>(logits.dims() - 1))) ==
                       inputs[1].shape() &&
                   inputs[1].dtype() == DType::kI64,
               "cross entropy of logits {} and labels {}", logits.to_string(),
               inputs[1].shape().to_string());
    return {{Shape{}, inputs[0].dtype()}, {Shape{inputs[1].elements()}, inputs[0].dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]), labels = as_contiguous(cx.pool, inputs[1]);
    const int64_t count = labels.elements(), width = x.dim(1);
    const int64_t* label = labels.data<int64_t>();
    for (int64_t row = 0; row < count; ++row) {
      if (label[row] == ignore_index_ || (label[row] >= 0 && label[row] < width)) continue;
      throw StatusError(Status::invalid("label", std::to_string(label[row]),
                                        fmt::format("must be in [0, {})", width)));
    }
    dispatch_floating(x.dtype(), [&]<typename T>() {
      T* lse = outputs[1].data<T>();
      cx.pool.parallel_for(count, 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          lse[row] = label[row] == ignore_index_
                         ? T{0}
                         : cpu::rows<T>().log_sum_exp(x.data<T>() + row * width, width);
        }
      });
      double total = 0;
      for (int64_t row = 0; row < count; ++row) {
        if (label[row] == ignore_index_) continue;
        total += static_cast<double>(lse[row]) -
                 static_cast<double>(x.data<T>()[row * width + label[row]]);
      }
      *outputs[0].data<T>() = static_cast<T>(total);
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    return {inputs[0], inputs[1], outputs[1].detach()};
  }
  // d logits = dy (softmax(logits) - one_hot(label)).
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor x = as_rows(cx, saved[0]), labels = as_contiguous(cx.pool, saved[1]);
    const int64_t width = x.dim(1);
    const int64_t* label = labels.data<int64_t>();
    Tensor dx = Tensor::empty(cx.allocator, saved[0].shape(), x.dtype());
    dispatch_floating(x.dtype(), [&]<typename T>() {
      const T dy = *output_grads[0].data<T>();
      const T* lse = saved[2].data<T>();
      cx.pool.parallel_for(
          labels.elements(), 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
            for (int64_t row = begin; row < end; ++row) {
              T* to = dx.data<T>() + row * width;
              if (label[row] == ignore_index_) {
                std::fill_n(to, width, T{0});
              } else {
                cpu::rows<T>().exp_shifted(x.data<T>() + row * width, lse[row], dy, to, width);
                to[label[row]] -= dy;
              }
            }
          });
    });
    return {dx};
  }

 private:
  const int64_t ignore_index_;
};

}  // namespace

Tensor cross_entropy_sum(Context& cx, const Tensor& logits, const Tensor& labels,
                         int64_t ignore_index) {
  return apply(cx, std::make_unique<CrossEntropySum>(ignore_index), {logits, labels})[0];
}

}  // namespace weft::ops
