#include <algorithm>
#include <numeric>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

// Columns summed at once: their partial sums live on the stack. Fewer, to kWidthMin, where threads
// would have none.
constexpr int64_t kWidthMin = 256, kWidthMax = 1024;
constexpr int64_t kLeafMax = 32;      // rows added one after the other
constexpr int64_t kLeafRowMax = 512;  // the same where the summed dim is the innermost

// Sums x[first..last) of rows `stride` apart, `width` columns, into out: halves down to leaves.
template <typename T>
void sum_columns(const T* x, int64_t stride, int64_t first, int64_t last, int64_t width, T* out) {
  if (last - first <= kLeafMax) {
    std::fill_n(out, width, T{0});
    cpu::rows<T>().add_rows(x + first * stride, stride, last - first, out, width);
    return;
  }
  const int64_t middle = first + (last - first) / 2;
  T other[kWidthMax];
  sum_columns(x, stride, first, middle, width, out);
  sum_columns(x, stride, middle, last, width, other);
  cpu::rows<T>().add(other, out, width);
}

template <typename T>
T sum_row(const T* x, int64_t n) {
  if (n <= kLeafRowMax) return cpu::rows<T>().sum(x, n);
  return sum_row(x, n / 2) + sum_row(x + n / 2, n - n / 2);
}

// The outermost levels of the tree: blocks of the extent.
template <typename T>
void sum_blocks(const T* x, const Split& split, int64_t blocks, int64_t first, int64_t last,
                int64_t width, T* out) {
  if (last - first == 1) {
    const int64_t begin = cpu::block_start(split.extent, blocks, first);
    const int64_t end = cpu::block_start(split.extent, blocks, last);
    if (split.inner == 1) {
      *out = sum_row(x + begin, end - begin);
    } else {
      sum_columns(x, split.inner, begin, end, width, out);
    }
    return;
  }
  const int64_t middle = first + (last - first + 1) / 2;
  T other[kWidthMax];
  sum_blocks(x, split, blocks, first, middle, width, out);
  sum_blocks(x, split, blocks, middle, last, width, other);
  cpu::rows<T>().add(other, out, width);
}

class SumMiddle final : public Kernel {
 public:
  SumMiddle(const Split& split, double factor) : split_(split), factor_(factor) {}
  std::string_view name() const override { return "sum_middle"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    dispatch_floating(inputs[0].dtype(), [&]<typename T>() {
      const int64_t each = split_.outer * split_.inner / cx.pool.size();
      const int64_t width = std::min(split_.inner, std::clamp(each, kWidthMin, kWidthMax));
      const int64_t pieces = width == 0 ? 0 : (split_.inner + width - 1) / width;
      const int64_t blocks =
          std::clamp<int64_t>(cx.block_count, 1, std::max<int64_t>(1, split_.extent));
      const T* from = inputs[0].data<T>();
      T* to = outputs[0].data<T>();
      const int64_t grain =
          std::max<int64_t>(1, 16384 / std::max<int64_t>(1, split_.extent * width));
      cx.pool.parallel_for(split_.outer * pieces, grain, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
          const int64_t outer = item / pieces, column = item % pieces * width;
          const int64_t columns = std::min(width, split_.inner - column);
          T* target = to + outer * split_.inner + column;
          sum_blocks(from + outer * split_.extent * split_.inner + column, split_, blocks, 0,
                     blocks, columns, target);
          if (factor_ != 1) cpu::rows<T>().scale(static_cast<T>(factor_), target, columns);
        }
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).sum_middle(inputs[0], split_, factor_, cx.block_count, outputs[0]);
  }

 private:
  const Split split_;
  const double factor_;
};

class Sum final : public ForwardOp {
 public:
  Sum(int dim, bool keep, bool mean) : dim_(dim), keep_(keep), mean_(mean) {}
  std::string_view name() const override { return mean_ ? "mean" : "sum"; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    Shape shape;
    for (int dim = 0; dim < inputs[0].shape().dims(); ++dim) {
      if (dim != dim_) shape.push_back(inputs[0].shape()[dim]);
      if (dim == dim_ && keep_) shape.push_back(1);
    }
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    Tensor out = Tensor::empty(cx.allocator, shape, x.dtype());
    sum_middle(cx, x, split_at(x.shape(), dim_), factor(x.shape()), out);
    return {out};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    shape_ = inputs[0].shape();
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    const Tensor dy = mean_ ? scale(cx, output_grads[0], factor(shape_)) : output_grads[0];
    std::vector<int64_t> strides(dy.strides().begin(), dy.strides().end());
    if (keep_) {
      strides[static_cast<size_t>(dim_)] = 0;
    } else {
      strides.insert(strides.begin() + dim_, 0);
    }
    return {dy.view(shape_, strides, 0)};
  }

 private:
  double factor(const Shape& shape) const {
    return mean_ ? 1.0 / static_cast<double>(shape[dim_]) : 1.0;
  }
  const int dim_;
  const bool keep_, mean_;
  Shape shape_;
};

}  // namespace

void sum_middle(Context& cx, const Tensor& x, const Split& split, double factor,
                const Tensor& out) {
  SumMiddle kernel(split, factor);
  Tensor result = out;
  run_kernel(cx, kernel, std::span(&x, 1), std::span(&result, 1));
}

Tensor sum(Context& cx, const Tensor& x, int dim, bool keep) {
  return run<Sum>(cx, {x}, positive_dim(dim, x.shape()), keep, false);
}

Tensor mean(Context& cx, const Tensor& x, int dim, bool keep) {
  return run<Sum>(cx, {x}, positive_dim(dim, x.shape()), keep, true);
}

Tensor sum_all(Context& cx, const Tensor& x) {
  return sum(cx, reshape(cx, x, Shape{x.elements()}), 0);
}

}  // namespace weft::ops
