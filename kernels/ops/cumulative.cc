#include <algorithm>

#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/reductions.h"

namespace weft::ops {
namespace {

constexpr int64_t kColumns = 256;  // columns summed together

class CumulativeSum final : public Op {
 public:
  CumulativeSum(int dim, bool reversed) : dim_(dim), reversed_(reversed) {}
  std::string_view name() const override { return "cumulative_sum"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).cumulative_sum(inputs[0], split_at(inputs[0].shape(), dim_), reversed_,
                                     outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    const Split split = split_at(x.shape(), dim_);
    if (x.elements() == 0) return;
    const int64_t pieces = (split.inner + kColumns - 1) / kColumns;
    dispatch_floating(x.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(split.outer * pieces, 1, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
          const int64_t column = item % pieces * kColumns;
          const int64_t at = item / pieces * split.extent * split.inner + column;
          sum_along(x.data<T>() + at, outputs[0].data<T>() + at, split,
                    std::min(kColumns, split.inner - column));
        }
      });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {cumulative_sum(cx, output_grads[0], dim_, !reversed_)};
  }

 private:
  template <typename T>
  void sum_along(const T* x, T* y, const Split& split, int64_t columns) const {
    double sums[kColumns] = {};  // a float's would lose a digit in ten thousand terms
    for (int64_t i = 0; i < split.extent; ++i) {
      const int64_t at = (reversed_ ? split.extent - 1 - i : i) * split.inner;
      for (int64_t column = 0; column < columns; ++column) {
        sums[column] += static_cast<double>(x[at + column]);
        y[at + column] = static_cast<T>(sums[column]);
      }
    }
  }

  const int dim_;
  const bool reversed_;
};

}  // namespace

Tensor cumulative_sum(Context& cx, const Tensor& x, int dim, bool reversed) {
  return run<CumulativeSum>(cx, {x}, positive_dim(dim, x.shape()), reversed);
}

}  // namespace weft::ops
