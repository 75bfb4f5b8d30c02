#include "kernels/ops/elementwise.h"

#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"

namespace weft::ops {
namespace {

constexpr int64_t kGrain = 8192;  // elements
using cpu::Unary;

struct Function {
  Unary kind;
  double a = 0, b = 0;
};

class UnaryBackward final : public Kernel {
 public:
  explicit UnaryBackward(Function f) : f_(f) {}
  std::string_view name() const override { return "unary_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    dispatch_rows(x.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(x.elements(), kGrain, [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(outputs[0].bytes());
        cpu::vectors<T>().unary_backward(
            f_.kind, static_cast<Wide<T>>(f_.a), static_cast<Wide<T>>(f_.b), x.data<T>() + begin,
            dy.data<T>() + begin, {outputs[0].data<T>() + begin, past}, end - begin);
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).unary_backward(f_.kind, f_.a, f_.b, inputs[0], inputs[1], outputs[0]);
  }

 private:
  const Function f_;
};

class UnaryOp final : public Op {
 public:
  explicit UnaryOp(Function f) : f_(f) {}
  std::string_view name() const override {
    constexpr std::string_view kNames[] = {
        "negate",       "abs",        "exp",        "log",         "sqrt",       "rsqrt",
        "square",       "power",      "clamp",      "softplus",    "leaky_relu", "elu",
        "hard_sigmoid", "hard_swish", "quick_gelu", "elu_plus_one"};
    return kNames[static_cast<size_t>(f_.kind)];
  }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    dispatch_rows(x.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(x.elements(), kGrain, [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(outputs[0].bytes());
        cpu::vectors<T>().unary(f_.kind, static_cast<Wide<T>>(f_.a), static_cast<Wide<T>>(f_.b),
                                x.data<T>() + begin, {outputs[0].data<T>() + begin, past},
                                end - begin);
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).unary(f_.kind, f_.a, f_.b, inputs[0], outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs[0]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    return {run_kernel(cx, UnaryBackward(f_), {saved[0], output_grads[0]}, saved[0].spec())};
  }

 private:
  const Function f_;
};

Tensor apply_unary(Context& cx, const Tensor& x, Function f) { return run<UnaryOp>(cx, {x}, f); }

class SwiGluBackward final : public Kernel {
 public:
  std::string_view name() const override { return "swiglu_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor gate = as_contiguous(cx.pool, inputs[0]), up = as_contiguous(cx.pool, inputs[1]);
    const Tensor dy = as_contiguous(cx.pool, inputs[2]);
    dispatch_rows(gate.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(gate.elements(), kGrain, [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(outputs[0].bytes());
        cpu::vectors<T>().swiglu_backward(gate.data<T>() + begin, up.data<T>() + begin,
                                          dy.data<T>() + begin,
                                          {outputs[0].data<T>() + begin, past},
                                          {outputs[1].data<T>() + begin, past}, end - begin);
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).swiglu_backward(inputs[0], inputs[1], inputs[2], outputs[0], outputs[1]);
  }
};

class SwiGlu final : public Op {
 public:
  std::string_view name() const override { return "swiglu"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    WEFT_CHECK(inputs[0].spec() == inputs[1].spec(), "swiglu of {} and {}",
               inputs[0].shape().to_string(), inputs[1].shape().to_string());
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor gate = as_contiguous(cx.pool, inputs[0]), up = as_contiguous(cx.pool, inputs[1]);
    dispatch_rows(gate.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(gate.elements(), kGrain, [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past(outputs[0].bytes());
        cpu::vectors<T>().swiglu(gate.data<T>() + begin, up.data<T>() + begin,
                                 {outputs[0].data<T>() + begin, past}, end - begin);
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).swiglu(inputs[0], inputs[1], outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs[0], inputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads;
    for (const Tensor& x : saved) {
      grads.push_back(Tensor::empty(cx.allocator, x.shape(), x.dtype()));
    }
    SwiGluBackward kernel;
    const std::array inputs = {saved[0], saved[1], output_grads[0]};
    run_kernel(cx, kernel, inputs, grads);
    return grads;
  }
};

}  // namespace

Tensor negate(Context& cx, const Tensor& x) { return apply_unary(cx, x, {Unary::kNegate}); }
Tensor abs(Context& cx, const Tensor& x) { return apply_unary(cx, x, {Unary::kAbs}); }
Tensor exp(Context& cx, const Tensor& x) { return apply_unary(cx, x, {Unary::kExp}); }
Tensor log(Context& cx, const Tensor& x) { return apply_unary(cx, x, {Unary::kLog}); }
Tensor sqrt(Context& cx, const Tensor& x) { return apply_unary(cx, x, {Unary::kSqrt}); }
Tensor rsqrt(Context& cx, const Tensor& x) { return apply_unary(cx, x, {Unary::kRsqrt}); }
Tensor square(Context& cx, const Tensor& x) { return apply_unary(cx, x, {Unary::kSquare}); }

Tensor power(Context& cx, const Tensor& x, double exponent) {
  if (exponent == 2) return square(cx, x);
  if (exponent == 0.5) return sqrt(cx, x);
  if (exponent == -0.5) return rsqrt(cx, x);
  return apply_unary(cx, x, {Unary::kPower, exponent});
}

Tensor clamp(Context& cx, const Tensor& x, double low, double high) {
  WEFT_CHECK(low <= high, "clamp to [{}, {}]", low, high);
  return apply_unary(cx, x, {Unary::kClamp, low, high});
}

Tensor softplus(Context& cx, const Tensor& x) { return apply_unary(cx, x, {Unary::kSoftplus}); }

Tensor leaky_relu(Context& cx, const Tensor& x, double slope) {
  return apply_unary(cx, x, {Unary::kLeakyRelu, slope});
}

Tensor elu(Context& cx, const Tensor& x, double alpha) {
  return apply_unary(cx, x, {Unary::kElu, alpha});
}

Tensor hard_sigmoid(Context& cx, const Tensor& x) {
  return apply_unary(cx, x, {Unary::kHardSigmoid});
}

Tensor hard_swish(Context& cx, const Tensor& x) { return apply_unary(cx, x, {Unary::kHardSwish}); }

Tensor quick_gelu(Context& cx, const Tensor& x) { return apply_unary(cx, x, {Unary::kQuickGelu}); }

Tensor elu_plus_one(Context& cx, const Tensor& x) {
  return apply_unary(cx, x, {Unary::kEluPlusOne});
}

Tensor swiglu(Context& cx, const Tensor& gate, const Tensor& up) {
  return run<SwiGlu>(cx, {gate, up});
}

}  // namespace weft::ops
