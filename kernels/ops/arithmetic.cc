// Sums, differences, products and quotients by element, with numpy's broadcasting.
#include "kernels/cpu/convert.h"
#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/broadcast.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

static_assert(static_cast<int>(Arithmetic::kDivide) == static_cast<int>(cpu::Binary::kDivide));

template <typename T>
void combine_integers(Context& cx, Arithmetic kind, const Tensor& a, const Tensor& b,
                      const Tensor& out) {
  WEFT_CHECK(kind != Arithmetic::kDivide, "divide of {}", dtype_name(out.dtype()));
  for_row_pairs<T, T>(
      cx, a, b, out,
      [kind](const T* x, int64_t sx, const T* y, int64_t sy, cpu::Target<T> z, int64_t n) {
        for (int64_t i = 0; i < n; ++i) {
          const T p = x[i * sx], q = y[i * sy];
          z.at[i] = static_cast<T>(kind == Arithmetic::kAdd        ? p + q
                                   : kind == Arithmetic::kSubtract ? p - q
                                                                   : p * q);
        }
      });
}

template <typename T>
void combine_floats(Context& cx, Arithmetic kind, const Tensor& a, const Tensor& b,
                    const Tensor& out) {
  for_row_pairs<T, T>(
      cx, a, b, out,
      [kind](const T* x, int64_t sx, const T* y, int64_t sy, cpu::Target<T> z, int64_t n) {
        cpu::vectors<T>().binary(static_cast<cpu::Binary>(kind), x, sx, y, sy, z, n);
      });
}

// In float, each result rounded once.
void combine_f16(Context& cx, Arithmetic kind, const Tensor& a, const Tensor& b,
                 const Tensor& out) {
  for_row_pairs<float16, float16>(cx, a, b, out,
                                  [kind](const float16* x, int64_t sx, const float16* y, int64_t sy,
                                         cpu::Target<float16> z, int64_t n) {
                                    constexpr int64_t kPiece = 256;
                                    float p[kPiece], q[kPiece];
                                    for (int64_t done = 0; done < n; done += kPiece) {
                                      const int64_t count = std::min(kPiece, n - done);
                                      cpu::widen(x + done * sx, p, sx == 0 ? 1 : count);
                                      cpu::widen(y + done * sy, q, sy == 0 ? 1 : count);
                                      float r[kPiece];
                                      cpu::vectors<float>().binary(static_cast<cpu::Binary>(kind),
                                                                   p, sx, q, sy, r, count);
                                      cpu::round(r, z.at + done, count);
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
    const Tensor &a = inputs[0], &b = inputs[1], &out = outputs[0];
    if (out.dtype() == DType::kI64) return combine_integers<int64_t>(cx, kind_, a, b, out);
    if (out.dtype() == DType::kI32) return combine_integers<int32_t>(cx, kind_, a, b, out);
    if (out.dtype() == DType::kU8) return combine_integers<uint8_t>(cx, kind_, a, b, out);
    if (out.dtype() == DType::kBF16) return combine_floats<bfloat16>(cx, kind_, a, b, out);
    if (out.dtype() == DType::kF16) return combine_f16(cx, kind_, a, b, out);
    dispatch_floating(out.dtype(), [&]<typename T>() { combine_floats<T>(cx, kind_, a, b, out); });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).binary(kind_, inputs[0], inputs[1], outputs[0]);
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
  bool native(DType half) const override { return half == DType::kBF16; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    dispatch_rows(outputs[0].dtype(), [&]<typename T>() {
      for_row_pairs<T, T>(
          cx, inputs[0], inputs[0], outputs[0],
          [this](const T* x, int64_t sx, const T*, int64_t, cpu::Target<T> z, int64_t n) {
            cpu::vectors<T>().scale(static_cast<Wide<T>>(factor_), x, sx, z, n);
          });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).scale(inputs[0], factor_, outputs[0]);
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
