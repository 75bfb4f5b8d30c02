#include <algorithm>

#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/indexing.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/reductions.h"

namespace weft::ops {
namespace {

constexpr int64_t kBlock = 512;   // elements whose extreme is taken before it is looked for
constexpr int64_t kColumns = 64;  // columns scanned together

template <typename T>
bool beats(bool larger, T candidate, T held) {
  if (held != held) return false;
  return candidate != candidate || (larger ? candidate > held : candidate < held);
}

template <typename T>
void scan_row(bool larger, const T* x, int64_t n, T* value, int64_t* index) {
  int64_t block = 0;
  T best = cpu::vectors<T>().extreme(larger, x, std::min(n, kBlock));
  for (int64_t at = kBlock; at < n; at += kBlock) {
    const T candidate = cpu::vectors<T>().extreme(larger, x + at, std::min(n - at, kBlock));
    if (!beats(larger, candidate, best)) continue;
    best = candidate;
    block = at;
  }
  int64_t place = block;
  while (x[place] != best && (best == best || x[place] == x[place])) ++place;
  *value = best;
  *index = place;
}

template <typename T>
void scan_columns(bool larger, const T* x, int64_t extent, int64_t stride, int64_t columns,
                  T* values, int64_t* indices) {
  std::copy_n(x, columns, values);
  std::fill_n(indices, columns, 0);
  for (int64_t row = 1; row < extent; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      const T candidate = x[row * stride + column];
      if (!beats(larger, candidate, values[column])) continue;
      values[column] = candidate;
      indices[column] = row;
    }
  }
}

// Outputs: values and int64 indices, the dim kept with extent 1.
class ExtremeAlong final : public Op {
 public:
  ExtremeAlong(int dim, bool larger) : dim_(dim), larger_(larger) {}
  std::string_view name() const override { return larger_ ? "max" : "min"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).extreme_along(larger_, inputs[0], split_at(inputs[0].shape(), dim_),
                                    outputs[0], outputs[1]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    Shape shape = inputs[0].shape();
    WEFT_CHECK(shape[dim_] > 0, "{} along dim {} of {}", name(), dim_, shape.to_string());
    shape[dim_] = 1;
    return {{shape, inputs[0].dtype()}, {shape, DType::kI64}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    const Split split = split_at(x.shape(), dim_);
    const int64_t width = std::min(split.inner, kColumns);
    const int64_t pieces = width == 0 ? 0 : (split.inner + width - 1) / width;
    const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, split.extent * width));
    dispatch_floating(x.dtype(), [&]<typename T>() {
      T* values = outputs[0].data<T>();
      int64_t* indices = outputs[1].data<int64_t>();
      cx.pool.parallel_for(split.outer * pieces, grain, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
          const int64_t outer = item / pieces, column = item % pieces * width;
          const T* from = x.data<T>() + outer * split.extent * split.inner + column;
          const int64_t to = outer * split.inner + column;
          if (split.inner == 1) {
            scan_row(larger_, from, split.extent, values + to, indices + to);
          } else {
            scan_columns(larger_, from, split.extent, split.inner,
                         std::min(width, split.inner - column), values + to, indices + to);
          }
        }
      });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    x_ = inputs[0].spec();
    return {outputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    return {scattered(cx, x_, dim_, saved[0], output_grads[0])};
  }

 private:
  const int dim_;
  const bool larger_;
  TensorSpec x_;
};

Extremes along(Context& cx, const Tensor& x, int dim, bool keep, bool larger) {
  const int at = positive_dim(dim, x.shape());
  const std::vector<Tensor> found = apply(cx, std::make_unique<ExtremeAlong>(at, larger), {x});
  if (keep) return {found[0], found[1]};
  Shape shape;
  for (int i = 0; i < x.shape().dims(); ++i) {
    if (i != at) shape.push_back(x.dim(i));
  }
  return {reshape(cx, found[0], shape), reshape(cx, found[1], shape)};
}

}  // namespace

Extremes max(Context& cx, const Tensor& x, int dim, bool keep) {
  return along(cx, x, dim, keep, true);
}

Extremes min(Context& cx, const Tensor& x, int dim, bool keep) {
  return along(cx, x, dim, keep, false);
}

Tensor argmax(Context& cx, const Tensor& x, int dim, bool keep) {
  return max(cx, x.detach(), dim, keep).indices;
}

Tensor argmin(Context& cx, const Tensor& x, int dim, bool keep) {
  return min(cx, x.detach(), dim, keep).indices;
}

}  // namespace weft::ops
