// Comparisons, selection, and the smaller or larger of two.
#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/broadcast.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

static_assert(static_cast<int>(Comparison::kGreaterEqual) ==
              static_cast<int>(cpu::Compare::kGreaterEqual));

template <typename T>
uint8_t holds(Comparison kind, T x, T y) {
  switch (kind) {
    case Comparison::kEqual:
      return x == y;
    case Comparison::kNotEqual:
      return x != y;
    case Comparison::kLess:
      return x < y;
    case Comparison::kLessEqual:
      return x <= y;
    case Comparison::kGreater:
      return x > y;
    case Comparison::kGreaterEqual:
      break;
  }
  return x >= y;
}

class CompareOp final : public Op {
 public:
  explicit CompareOp(Comparison kind) : kind_(kind) {}
  std::string_view name() const override { return "compare"; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    WEFT_CHECK(inputs[0].dtype() == inputs[1].dtype(), "compare: dtypes {} and {}",
               dtype_name(inputs[0].dtype()), dtype_name(inputs[1].dtype()));
    return {{broadcast_shape(inputs[0].shape(), inputs[1].shape()), DType::kU8}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const auto floating = [&]<typename T>() {
      for_row_pairs<T, uint8_t>(
          cx, inputs[0], inputs[1], outputs[0],
          [&](const T* x, int64_t sx, const T* y, int64_t sy, cpu::Target<uint8_t> z, int64_t n) {
            cpu::vectors<T>().compare(static_cast<cpu::Compare>(kind_), x, sx, y, sy, z.at, n);
          });
    };
    const auto other = [&]<typename T>() {
      for_row_pairs<T, uint8_t>(
          cx, inputs[0], inputs[1], outputs[0],
          [&](const T* x, int64_t sx, const T* y, int64_t sy, cpu::Target<uint8_t> z, int64_t n) {
            for (int64_t i = 0; i < n; ++i) z.at[i] = holds(kind_, x[i * sx], y[i * sy]);
          });
    };
    const DType dtype = inputs[0].dtype();
    if (dtype == DType::kI64) return other.operator()<int64_t>();
    if (dtype == DType::kI32) return other.operator()<int32_t>();
    if (dtype == DType::kU8) return other.operator()<uint8_t>();
    dispatch_floating(dtype, floating);
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).compare(static_cast<cpu::Compare>(kind_), inputs[0], inputs[1], outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context&, std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }

 private:
  const Comparison kind_;
};

// Inputs: mask, a, b.
class Where final : public Op {
 public:
  std::string_view name() const override { return "where"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    WEFT_CHECK(inputs[0].dtype() == DType::kU8 && inputs[1].dtype() == inputs[2].dtype(),
               "where: a mask of {}, {} and {}", dtype_name(inputs[0].dtype()),
               dtype_name(inputs[1].dtype()), dtype_name(inputs[2].dtype()));
    const Shape choices = broadcast_shape(inputs[1].shape(), inputs[2].shape());
    return {{broadcast_shape(inputs[0].shape(), choices), inputs[1].dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Shape& shape = outputs[0].shape();
    const size_t dims = static_cast<size_t>(shape.dims());
    Strides strides[3];
    for (size_t i = 0; i < 3; ++i) strides[i] = broadcast_strides(inputs[i], shape);
    const StridedLoop<4> loop(shape,
                              {std::span(strides[0]).first(dims), std::span(strides[1]).first(dims),
                               std::span(strides[2]).first(dims), outputs[0].strides()});
    dispatch_rows(outputs[0].dtype(), [&]<typename T>() {
      loop.run(cx.pool, [&](int64_t n, const std::array<int64_t, 4>& at, int64_t) {
        cpu::vectors<T>().where(inputs[0].data<uint8_t>() + at[0], loop.inner_stride(0),
                                inputs[1].data<T>() + at[1], loop.inner_stride(1),
                                inputs[2].data<T>() + at[2], loop.inner_stride(2),
                                outputs[0].data<T>() + at[3], n);
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).where(inputs[0], inputs[1], inputs[2], outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    for (size_t i = 0; i < 2; ++i) {
      shapes_[i] = inputs[1 + i].shape();
      wanted_[i] = inputs[1 + i].requires_grad();
    }
    return {inputs[0]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor& dy = output_grads[0];
    const Tensor zero = Tensor::zeros(cx.allocator, Shape{}, dy.dtype());
    std::vector<Tensor> grads(3);
    if (wanted_[0]) grads[1] = reduce_to(cx, where(cx, saved[0], dy, zero), shapes_[0]);
    if (wanted_[1]) grads[2] = reduce_to(cx, where(cx, saved[0], zero, dy), shapes_[1]);
    return grads;
  }

 private:
  Shape shapes_[2];
  bool wanted_[2] = {false, false};
};

// Inputs: a, b, dy, of one shape. Outputs: their gradients.
class ExtremeBackward final : public Kernel {
 public:
  explicit ExtremeBackward(bool larger) : larger_(larger) {}
  std::string_view name() const override { return "extreme_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor a = as_contiguous(cx.pool, inputs[0]), b = as_contiguous(cx.pool, inputs[1]);
    const Tensor dy = as_contiguous(cx.pool, inputs[2]);
    dispatch_rows(dy.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(dy.elements(), 8192, [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(outputs[0].bytes());
        cpu::vectors<T>().extreme_backward(larger_, a.data<T>() + begin, b.data<T>() + begin,
                                           dy.data<T>() + begin,
                                           {outputs[0].data<T>() + begin, past},
                                           {outputs[1].data<T>() + begin, past}, end - begin);
      });
    });
  }

 private:
  const bool larger_;
};

class Extreme final : public Op {
 public:
  explicit Extreme(bool larger) : larger_(larger) {}
  std::string_view name() const override { return larger_ ? "maximum" : "minimum"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    WEFT_CHECK(inputs[0].dtype() == inputs[1].dtype(), "{}: dtypes {} and {}", name(),
               dtype_name(inputs[0].dtype()), dtype_name(inputs[1].dtype()));
    return {{broadcast_shape(inputs[0].shape(), inputs[1].shape()), inputs[0].dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const cpu::Binary kind = larger_ ? cpu::Binary::kMaximum : cpu::Binary::kMinimum;
    dispatch_rows(outputs[0].dtype(), [&]<typename T>() {
      for_row_pairs<T, T>(cx, inputs[0], inputs[1], outputs[0],
                          [&](const T* x, int64_t sx, const T* y, int64_t sy, cpu::Target<T> z,
                              int64_t n) { cpu::vectors<T>().binary(kind, x, sx, y, sy, z, n); });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).extreme(larger_, inputs[0], inputs[1], outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    wanted_[0] = inputs[0].requires_grad();
    wanted_[1] = inputs[1].requires_grad();
    return {inputs[0], inputs[1]};
  }
  // dy where the other side does not win, half of it where they are equal: of NaN both get it.
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor& dy = output_grads[0];
    if (cx.device().is_cpu()) return in_one_pass(cx, saved, dy);
    const Tensor half = scale(cx, dy, 0.5);
    const Tensor zero = Tensor::zeros(cx.allocator, Shape{}, dy.dtype());
    const Tensor tied = compare(cx, saved[0], saved[1], Comparison::kEqual);
    std::vector<Tensor> grads(2);
    for (size_t i = 0; i < 2; ++i) {
      if (!wanted_[i]) continue;
      const Comparison loses = larger_ ? Comparison::kLess : Comparison::kGreater;
      const Tensor lost = compare(cx, saved[i], saved[1 - i], loses);
      const Tensor share = where(cx, lost, zero, where(cx, tied, half, dy));
      grads[i] = reduce_to(cx, share, saved[i].shape());
    }
    return grads;
  }

 private:
  std::vector<Tensor> in_one_pass(Context& cx, std::span<const Tensor> saved,
                                  const Tensor& dy) const {
    const size_t dims = static_cast<size_t>(dy.shape().dims());
    std::vector<Tensor> inputs, grads;
    for (const Tensor& x : saved) {
      const Strides strides = broadcast_strides(x, dy.shape());
      inputs.push_back(x.view(dy.shape(), std::span(strides).first(dims), 0));
      grads.push_back(Tensor::empty(cx.allocator, dy.shape(), dy.dtype()));
    }
    inputs.push_back(dy);
    ExtremeBackward kernel(larger_);
    run_kernel(cx, kernel, inputs, grads);
    for (size_t i = 0; i < 2; ++i) {
      grads[i] = wanted_[i] ? reduce_to(cx, grads[i], saved[i].shape()) : Tensor();
    }
    return grads;
  }

  const bool larger_;
  bool wanted_[2] = {false, false};
};

}  // namespace

Tensor compare(Context& cx, const Tensor& a, const Tensor& b, Comparison kind) {
  return run<CompareOp>(cx, {a.detach(), b.detach()}, kind);
}

Tensor where(Context& cx, const Tensor& mask, const Tensor& a, const Tensor& b) {
  return run<Where>(cx, {mask, a, b});
}

Tensor minimum(Context& cx, const Tensor& a, const Tensor& b) {
  return run<Extreme>(cx, {a, b}, false);
}

Tensor maximum(Context& cx, const Tensor& a, const Tensor& b) {
  return run<Extreme>(cx, {a, b}, true);
}

}  // namespace weft::ops
