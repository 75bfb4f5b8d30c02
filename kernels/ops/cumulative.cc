#include <algorithm>

#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/reductions.h"

namespace weft::ops {
namespace {

constexpr int64_t kColumns = 2048;  // summed together: at least a page of each row
constexpr int64_t kGrain = 16384;   // elements

class CumulativeSum final : public Op {
 public:
  CumulativeSum(int dim, bool reversed) : dim_(dim), reversed_(reversed) {}
  std::string_view name() const override { return "cumulative_sum"; }
  bool native(DType half) const override { return half == DType::kBF16; }
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
    dispatch_rows(x.dtype(), [&]<typename T>() {
      if (split.inner == 1) {
        sum_rows<T>(cx, x, split, outputs[0]);
      } else {
        sum_columns<T>(cx, x, split, outputs[0]);
      }
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
  void sum_rows(Context& cx, const Tensor& x, const Split& split, const Tensor& out) const {
    const int64_t n = split.extent;
    cx.pool.parallel_for(split.outer, 1 + kGrain / n, [&](int64_t begin, int64_t end) {
      const cpu::PastCaches past(out.bytes(), static_cast<size_t>(n) * sizeof(T));
      for (int64_t at = begin * n; at < end * n; at += n) {
        cpu::vectors<T>().running_sums(reversed_, x.data<T>() + at, {out.data<T>() + at, past}, n);
      }
    });
  }
  template <typename T>
  void sum_columns(Context& cx, const Tensor& x, const Split& split, const Tensor& out) const {
    const int64_t pieces = (split.inner + kColumns - 1) / kColumns;
    cx.pool.parallel_for(split.outer * pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t column = item % pieces * kColumns;
        const int64_t columns = std::min(kColumns, split.inner - column);
        const int64_t first = item / pieces * split.extent * split.inner + column;
        const cpu::PastCaches past(out.bytes(), static_cast<size_t>(columns) * sizeof(T));
        double sums[kColumns] = {};
        for (int64_t i = 0; i < split.extent; ++i) {
          const int64_t at = first + (reversed_ ? split.extent - 1 - i : i) * split.inner;
          cpu::vectors<T>().add_to_running(x.data<T>() + at, reversed_ ? -split.inner : split.inner,
                                           sums, {out.data<T>() + at, past}, columns);
        }
      }
    });
  }

  const int dim_;
  const bool reversed_;
};

}  // namespace

Tensor cumulative_sum(Context& cx, const Tensor& x, int dim, bool reversed) {
  return run<CumulativeSum>(cx, {x}, positive_dim(dim, x.shape()), reversed);
}

}  // namespace weft::ops
