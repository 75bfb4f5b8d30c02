#include "kernels/ops/movement.h"

#include <algorithm>

#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

class Flip final : public Op {
 public:
  explicit Flip(int dim) : dim_(dim) {}
  std::string_view name() const override { return "flip"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).flip(inputs[0], dim_, outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    const Split split = split_at(x.shape(), dim_);
    dispatch_all(x.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(
          split.outer * split.extent, 1 + 16384 / (split.inner + 1),
          [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
              const int64_t place = i % split.extent;
              std::copy_n(x.data<T>() + (i - place + split.extent - 1 - place) * split.inner,
                          split.inner, outputs[0].data<T>() + i * split.inner);
            }
          });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {flip(cx, output_grads[0], dim_)};
  }

 private:
  const int dim_;
};

class Expand final : public ForwardOp {
 public:
  explicit Expand(Shape shape) : shape_(shape) {}
  std::string_view name() const override { return "expand"; }
  std::vector<Tensor> forward(Context&, std::span<const Tensor> inputs) override {
    WEFT_CHECK(broadcast_shape(inputs[0].shape(), shape_) == shape_, "{} expanded to {}",
               inputs[0].shape().to_string(), shape_.to_string());
    const Strides strides = broadcast_strides(inputs[0], shape_);
    return {
        inputs[0].view(shape_, std::span(strides).first(static_cast<size_t>(shape_.dims())), 0)};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    from_ = inputs[0].shape();
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {reduce_to(cx, output_grads[0], from_)};
  }

 private:
  const Shape shape_;
  Shape from_;
};

// x with a dim of extent 1 put in at `at` and expanded to `times`, then joined with its neighbour
// `dim`.
Tensor repeat_at(Context& cx, const Tensor& x, int dim, int at, int64_t times) {
  WEFT_CHECK(times >= 0, "{} times", times);
  Shape one, many;
  for (int i = 0; i <= x.shape().dims(); ++i) {
    if (i == at) {
      one.push_back(1);
      many.push_back(times);
    }
    if (i == x.shape().dims()) break;
    one.push_back(x.dim(i));
    many.push_back(x.dim(i));
  }
  Shape joined = x.shape();
  joined[dim] *= times;
  return reshape(cx, expand(cx, reshape(cx, x, one), many), joined);
}

class TriangularMask final : public Kernel {
 public:
  explicit TriangularMask(int64_t diagonal) : diagonal_(diagonal) {}
  std::string_view name() const override { return "triangular_mask"; }
  void cuda(Context& cx, std::span<const Tensor>, std::span<Tensor> outputs) override {
    cuda::backend(cx).triangular_mask(diagonal_, outputs[0]);
  }
  void cpu(Context& cx, std::span<const Tensor>, std::span<Tensor> outputs) override {
    const int64_t columns = outputs[0].dim(1);
    cx.pool.parallel_for(
        outputs[0].dim(0), 1 + 16384 / (columns + 1), [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row) {
            uint8_t* to = outputs[0].data<uint8_t>() + row * columns;
            const int64_t kept = std::clamp<int64_t>(row + diagonal_ + 1, 0, columns);
            std::fill_n(to, kept, uint8_t{1});
            std::fill(to + kept, to + columns, uint8_t{0});
          }
        });
  }

 private:
  const int64_t diagonal_;
};

}  // namespace

Tensor flip(Context& cx, const Tensor& x, int dim) {
  return run<Flip>(cx, {x}, positive_dim(dim, x.shape()));
}

Tensor roll(Context& cx, const Tensor& x, int dim, int64_t shift) {
  const int64_t extent = x.dim(dim);
  if (extent == 0) return contiguous(cx, x);
  const int64_t forward = (shift % extent + extent) % extent;
  const std::vector<Tensor> parts{slice(cx, x, dim, extent - forward, forward),
                                  slice(cx, x, dim, 0, extent - forward)};
  return concat(cx, parts, dim);
}

Tensor stack(Context& cx, std::span<const Tensor> parts, int dim) {
  WEFT_CHECK(!parts.empty(), "stack of nothing");
  const int dims = parts[0].shape().dims() + 1, at = dim < 0 ? dim + dims : dim;
  WEFT_CHECK(at >= 0 && at < dims, "stack along dim {} of {}", dim, dims);
  Shape shape;
  for (int i = 0; i < dims; ++i) {
    if (i == at) shape.push_back(1);
    if (i < dims - 1) shape.push_back(parts[0].dim(i));
  }
  std::vector<Tensor> layers;
  for (const Tensor& part : parts) {
    WEFT_CHECK(part.spec() == parts[0].spec(), "stack of {} and {}", parts[0].shape().to_string(),
               part.shape().to_string());
    layers.push_back(reshape(cx, part, shape));
  }
  return concat(cx, layers, at);
}

Tensor expand(Context& cx, const Tensor& x, Shape shape) { return run<Expand>(cx, {x}, shape); }

Tensor repeat(Context& cx, const Tensor& x, int dim, int64_t times) {
  const int at = positive_dim(dim, x.shape());
  return repeat_at(cx, x, at, at, times);
}

Tensor repeat_interleave(Context& cx, const Tensor& x, int dim, int64_t times) {
  const int at = positive_dim(dim, x.shape());
  return repeat_at(cx, x, at, at + 1, times);
}

Tensor triangular_mask(Context& cx, int64_t rows, int64_t columns, int64_t diagonal) {
  return run_kernel(cx, TriangularMask(diagonal), {}, {Shape{rows, columns}, DType::kU8});
}

Tensor lower_triangle(Context& cx, const Tensor& x, int64_t diagonal) {
  const Tensor zero = Tensor::zeros(cx.allocator, Shape{}, x.dtype());
  return where(cx, triangular_mask(cx, x.dim(-2), x.dim(-1), diagonal), x, zero);
}

Tensor upper_triangle(Context& cx, const Tensor& x, int64_t diagonal) {
  const Tensor zero = Tensor::zeros(cx.allocator, Shape{}, x.dtype());
  return where(cx, triangular_mask(cx, x.dim(-2), x.dim(-1), diagonal - 1), zero, x);
}

}  // namespace weft::ops
