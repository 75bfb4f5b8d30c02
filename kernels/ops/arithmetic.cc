// Sums, differences, products and quotients by element, with numpy's broadcasting.
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

enum class Arithmetic { kAdd, kSubtract, kMultiply, kDivide };

template <typename T, typename F>
void for_triples(Context& cx, const Tensor& a, const Tensor& b, const Tensor& out, F f) {
  const Shape& shape = out.shape();
  const size_t dims = static_cast<size_t>(shape.dims());
  const Strides sa = broadcast_strides(a, shape), sb = broadcast_strides(b, shape);
  const StridedLoop<3> loop(shape,
                            {std::span(sa).first(dims), std::span(sb).first(dims), out.strides()});
  const T* pa = a.data<T>();
  const T* pb = b.data<T>();
  T* po = out.data<T>();
  const int64_t step_a = loop.inner_stride(0), step_b = loop.inner_stride(1);
  WEFT_CHECK(loop.inner() == 1 || loop.inner_stride(2) == 1, "results are contiguous");
  loop.run(cx.pool, [&](int64_t n, const std::array<int64_t, 3>& at, int64_t) {
    const T* x = pa + at[0];
    const T* y = pb + at[1];
    T* z = po + at[2];
    if (step_a == 1 && step_b == 1) {
      for (int64_t i = 0; i < n; ++i) z[i] = f(x[i], y[i]);
    } else if (step_a == 1 && step_b == 0) {
      const T same = *y;
      for (int64_t i = 0; i < n; ++i) z[i] = f(x[i], same);
    } else if (step_a == 0 && step_b == 1) {
      const T same = *x;
      for (int64_t i = 0; i < n; ++i) z[i] = f(same, y[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) z[i] = f(x[i * step_a], y[i * step_b]);
    }
  });
}

class Binary final : public Op {
 public:
  explicit Binary(Arithmetic kind) : kind_(kind) {}
  std::string_view name() const override {
    constexpr std::string_view kNames[] = {"add", "subtract", "multiply", "divide"};
    return kNames[static_cast<size_t>(kind_)];
  }
  bool native(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    WEFT_CHECK(inputs[0].dtype() == inputs[1].dtype(), "{}: dtypes {} and {}", name(),
               dtype_name(inputs[0].dtype()), dtype_name(inputs[1].dtype()));
    return {{broadcast_shape(inputs[0].shape(), inputs[1].shape()), inputs[0].dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    dispatch_all(outputs[0].dtype(), [&]<typename T>() {
      const Tensor &a = inputs[0], &b = inputs[1], &out = outputs[0];
      switch (kind_) {
        case Arithmetic::kAdd:
          return for_triples<T>(cx, a, b, out, [](T x, T y) { return static_cast<T>(x + y); });
        case Arithmetic::kSubtract:
          return for_triples<T>(cx, a, b, out, [](T x, T y) { return static_cast<T>(x - y); });
        case Arithmetic::kMultiply:
          return for_triples<T>(cx, a, b, out, [](T x, T y) { return static_cast<T>(x * y); });
        case Arithmetic::kDivide:
          WEFT_CHECK(is_floating(out.dtype()), "divide of {}", dtype_name(out.dtype()));
          return for_triples<T>(cx, a, b, out, [](T x, T y) { return static_cast<T>(x / y); });
      }
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    shapes_[0] = inputs[0].shape();
    shapes_[1] = inputs[1].shape();
    wanted_[0] = inputs[0].requires_grad();
    wanted_[1] = inputs[1].requires_grad();
    if (kind_ == Arithmetic::kAdd || kind_ == Arithmetic::kSubtract) return {};
    if (kind_ == Arithmetic::kDivide) return {wanted_[1] ? inputs[0] : Tensor(), inputs[1]};
    return {wanted_[1] ? inputs[0] : Tensor(), wanted_[0] ? inputs[1] : Tensor()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor& dy = output_grads[0];
    std::vector<Tensor> grads(2);
    for (size_t i = 0; i < 2; ++i) {
      if (wanted_[i]) grads[i] = reduce_to(cx, one(cx, i, saved, dy), shapes_[i]);
    }
    return grads;
  }

 private:
  Tensor one(Context& cx, size_t input, std::span<const Tensor> saved, const Tensor& dy) const {
    switch (kind_) {
      case Arithmetic::kAdd:
        return dy;
      case Arithmetic::kSubtract:
        return input == 0 ? dy : scale(cx, dy, -1);
      case Arithmetic::kMultiply:
        return multiply(cx, dy, saved[1 - input]);
      case Arithmetic::kDivide:
        break;
    }
    const Tensor over = divide(cx, dy, saved[1]);
    if (input == 0) return over;
    return scale(cx, multiply(cx, over, divide(cx, saved[0], saved[1])), -1);
  }

  const Arithmetic kind_;
  Shape shapes_[2];
  bool wanted_[2] = {false, false};
};

class Scale final : public Op {
 public:
  explicit Scale(double factor) : factor_(factor) {}
  std::string_view name() const override { return "scale"; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    dispatch_floating(outputs[0].dtype(), [&]<typename T>() {
      const T factor = static_cast<T>(factor_);
      for_triples<T>(cx, inputs[0], inputs[0], outputs[0], [factor](T x, T) { return x * factor; });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {scale(cx, output_grads[0], factor_)};
  }

 private:
  const double factor_;
};

}  // namespace

Tensor add(Context& cx, const Tensor& a, const Tensor& b) {
  return run<Binary>(cx, {a, b}, Arithmetic::kAdd);
}
Tensor subtract(Context& cx, const Tensor& a, const Tensor& b) {
  return run<Binary>(cx, {a, b}, Arithmetic::kSubtract);
}
Tensor multiply(Context& cx, const Tensor& a, const Tensor& b) {
  return run<Binary>(cx, {a, b}, Arithmetic::kMultiply);
}
Tensor divide(Context& cx, const Tensor& a, const Tensor& b) {
  return run<Binary>(cx, {a, b}, Arithmetic::kDivide);
}
Tensor scale(Context& cx, const Tensor& x, double factor) { return run<Scale>(cx, {x}, factor); }

}  // namespace weft::ops
