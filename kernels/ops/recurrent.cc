// The gates are bent by the vectorized curves, a row of the state at a time, and kept bent for the
// backward pass.
#include "kernels/ops/recurrent.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/movement.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

// f(row) for each row of the state, shared by threads.
template <typename F>
void for_states(Context& cx, const Tensor& state, F f) {
  const int64_t grain = 1 + 2048 / (1 + state.dim(-1));
  cx.pool.parallel_for(row_count(state.shape()), grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) f(row);
  });
}

std::vector<Tensor> contiguous_of(Context& cx, std::span<const Tensor> inputs) {
  std::vector<Tensor> whole;
  for (const Tensor& input : inputs) {
    whole.push_back(input ? as_contiguous(cx.pool, input) : input);
  }
  return whole;
}

// Elements of row `row` of x, or null where there is no x.
template <typename T>
T* at(const Tensor& x, int64_t row) {
  return x ? x.data<T>() + row * x.dim(-1) : nullptr;
}

Shape with_width(Shape shape, int64_t width) {
  shape[-1] = width;
  return shape;
}

std::vector<Tensor> empty_like(Context& cx, std::initializer_list<Tensor> tensors) {
  std::vector<Tensor> made;
  for (const Tensor& x : tensors) {
    made.push_back(Tensor::empty(cx.allocator, x.shape(), x.dtype()));
  }
  return made;
}

template <typename T>
T slope_of_sigmoid(T y) {
  return y * (T{1} - y);
}

// Inputs: bent gates, c, c', and the gradients of h' and c' (or empty handles); outputs: those of
// the gates and of c.
class LstmBackward final : public Kernel {
 public:
  std::string_view name() const override { return "lstm_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const std::vector<Tensor> x = contiguous_of(cx, inputs);
    const int64_t n = x[1].dim(-1);
    dispatch_floating(x[1].dtype(), [&]<typename T>() {
      for_states(cx, x[1], [&](int64_t row) {
        const T *gates = at<T>(x[0], row), *c = at<T>(x[1], row), *next = at<T>(x[2], row);
        const T *dh = at<T>(x[3], row), *d_next = at<T>(x[4], row);
        T *d = at<T>(outputs[0], row), *dc = at<T>(outputs[1], row);
        const T *in = gates, *forget = gates + n, *cell = gates + 2 * n, *out = gates + 3 * n;
        cpu::rows<T>().curve(cpu::Curve::kTanh, next, dc, n);
        for (int64_t j = 0; j < n; ++j) {
          const T bent = dc[j], from_h = dh == nullptr ? T{0} : dh[j];
          const T total =
              (d_next == nullptr ? T{0} : d_next[j]) + from_h * out[j] * (T{1} - bent * bent);
          d[j] = total * cell[j] * slope_of_sigmoid(in[j]);
          d[n + j] = total * c[j] * slope_of_sigmoid(forget[j]);
          d[2 * n + j] = total * in[j] * (T{1} - cell[j] * cell[j]);
          d[3 * n + j] = from_h * bent * slope_of_sigmoid(out[j]);
          dc[j] = total * forget[j];
        }
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).lstm_gates_backward(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4],
                                          outputs[0], outputs[1]);
  }
};

// Inputs: gates, c. Outputs: h', c', the gates as they are bent.
class LstmGates final : public Op {
 public:
  std::string_view name() const override { return "lstm"; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor &gates = inputs[0], &c = inputs[1];
    WEFT_CHECK(c.shape().dims() >= 1 && gates.shape() == with_width(c.shape(), 4 * c.dim(-1)),
               "lstm of gates {} and states {}", gates.shape().to_string(), c.shape().to_string());
    return {c.spec(), c.spec(), gates.spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const std::vector<Tensor> x = contiguous_of(cx, inputs);
    const int64_t n = x[1].dim(-1);
    dispatch_floating(x[1].dtype(), [&]<typename T>() {
      const auto& curve = cpu::rows<T>().curve;
      for_states(cx, x[1], [&](int64_t row) {
        const T *gates = at<T>(x[0], row), *c = at<T>(x[1], row);
        T *h = at<T>(outputs[0], row), *next = at<T>(outputs[1], row), *y = at<T>(outputs[2], row);
        curve(cpu::Curve::kSigmoid, gates, y, 2 * n);
        curve(cpu::Curve::kTanh, gates + 2 * n, y + 2 * n, n);
        curve(cpu::Curve::kSigmoid, gates + 3 * n, y + 3 * n, n);
        for (int64_t j = 0; j < n; ++j) next[j] = y[n + j] * c[j] + y[j] * y[2 * n + j];
        curve(cpu::Curve::kTanh, next, h, n);
        for (int64_t j = 0; j < n; ++j) h[j] *= y[3 * n + j];
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).lstm_gates(inputs[0], inputs[1], outputs[0], outputs[1], outputs[2]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    return {outputs[2].detach(), inputs[1], outputs[1].detach()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads = empty_like(cx, {saved[0], saved[1]});
    LstmBackward kernel;
    const std::array inputs = {saved[0], saved[1], saved[2], output_grads[0], output_grads[1]};
    run_kernel(cx, kernel, inputs, grads);
    return grads;
  }
};

// Inputs: bent gates, b_n, h, the gradient of h'; outputs: those of a, b and h.
class GruBackward final : public Kernel {
 public:
  std::string_view name() const override { return "gru_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const std::vector<Tensor> x = contiguous_of(cx, inputs);
    const int64_t n = x[2].dim(-1);
    dispatch_floating(x[2].dtype(), [&]<typename T>() {
      for_states(cx, x[2], [&](int64_t row) {
        const T *reset = at<T>(x[0], row), *update = reset + n, *fresh = update + n;
        const T *b = at<T>(x[1], row), *h = at<T>(x[2], row), *d_next = at<T>(x[3], row);
        T *da = at<T>(outputs[0], row), *db = at<T>(outputs[1], row), *dh = at<T>(outputs[2], row);
        for (int64_t j = 0; j < n; ++j) {
          const T d = d_next[j], z = update[j], value = fresh[j];
          const T d_fresh = d * (T{1} - z) * (T{1} - value * value);
          const T d_reset = d_fresh * b[j] * slope_of_sigmoid(reset[j]);
          const T d_update = d * (h[j] - value) * slope_of_sigmoid(z);
          da[j] = db[j] = d_reset;
          da[n + j] = db[n + j] = d_update;
          da[2 * n + j] = d_fresh;
          db[2 * n + j] = d_fresh * reset[j];
          dh[j] = d * z;
        }
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).gru_gates_backward(inputs[0], inputs[1], inputs[2], inputs[3], outputs[0],
                                         outputs[1], outputs[2]);
  }
};

// Inputs: a, b, h. Outputs: h', the gates as they are bent.
class GruGates final : public Op {
 public:
  std::string_view name() const override { return "gru"; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor &a = inputs[0], &b = inputs[1], &h = inputs[2];
    WEFT_CHECK(h.shape().dims() >= 1 && a.shape() == with_width(h.shape(), 3 * h.dim(-1)) &&
                   b.shape() == a.shape(),
               "gru of gates {} and {} and states {}", a.shape().to_string(), b.shape().to_string(),
               h.shape().to_string());
    return {h.spec(), a.spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const std::vector<Tensor> x = contiguous_of(cx, inputs);
    const int64_t n = x[2].dim(-1);
    dispatch_floating(x[2].dtype(), [&]<typename T>() {
      const auto& curve = cpu::rows<T>().curve;
      for_states(cx, x[2], [&](int64_t row) {
        const T *a = at<T>(x[0], row), *b = at<T>(x[1], row), *h = at<T>(x[2], row);
        T *next = at<T>(outputs[0], row), *y = at<T>(outputs[1], row);
        for (int64_t j = 0; j < 2 * n; ++j) y[j] = a[j] + b[j];
        curve(cpu::Curve::kSigmoid, y, y, 2 * n);
        for (int64_t j = 0; j < n; ++j) y[2 * n + j] = a[2 * n + j] + y[j] * b[2 * n + j];
        curve(cpu::Curve::kTanh, y + 2 * n, y + 2 * n, n);
        for (int64_t j = 0; j < n; ++j) {
          next[j] = y[2 * n + j] + y[n + j] * (h[j] - y[2 * n + j]);
        }
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).gru_gates(inputs[0], inputs[1], inputs[2], outputs[0], outputs[1]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    return {outputs[1].detach(), inputs[1], inputs[2]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor &bent = saved[0], &b = saved[1], &h = saved[2];
    std::vector<Tensor> grads = empty_like(cx, {bent, b, h});
    GruBackward kernel;
    const int64_t n = h.dim(-1);
    const std::array inputs = {bent, slice(cx, b, -1, 2 * n, n), h, output_grads[0]};
    run_kernel(cx, kernel, inputs, grads);
    return grads;
  }
};

Tensor product(Context& cx, const Tensor& x, const Tensor& weight, const Tensor& bias,
               const Tensor& residual = Tensor()) {
  return linear(cx, x, weight, bias, WeightLayout::kOutIn, std::nullopt, residual);
}

// The inputs' part of the gates of each step.
std::vector<Tensor> inputs_by_step(Context& cx, const Tensor& x, const RecurrentWeights& weights) {
  WEFT_CHECK(x.shape().dims() == 3, "steps {}", x.shape().to_string());
  const Tensor all = product(cx, x, weights.input, weights.input_bias);
  const std::vector<int64_t> lengths(static_cast<size_t>(x.dim(0)), 1);
  std::vector<Tensor> steps;
  for (const Tensor& step : split(cx, all, 0, lengths)) {
    steps.push_back(reshape(cx, step, Shape{all.dim(1), all.dim(2)}));
  }
  return steps;
}

// Of no steps: [0, B, H].
Tensor outputs_of(Context& cx, const std::vector<Tensor>& steps, const Tensor& h) {
  if (!steps.empty()) return stack(cx, steps, 0);
  return Tensor::zeros(cx.allocator, Shape{0, h.dim(0), h.dim(1)}, h.dtype());
}

}  // namespace

LstmState lstm_gates(Context& cx, const Tensor& gates, const Tensor& c) {
  const std::vector<Tensor> next = apply(cx, std::make_unique<LstmGates>(), {gates, c});
  return {next[0], next[1]};
}

LstmState lstm_cell(Context& cx, const Tensor& x, const LstmState& state,
                    const RecurrentWeights& weights) {
  const Tensor from_input = product(cx, x, weights.input, weights.input_bias);
  const Tensor gates = product(cx, state.h, weights.hidden, weights.hidden_bias, from_input);
  return lstm_gates(cx, gates, state.c);
}

LstmSteps lstm(Context& cx, const Tensor& x, const LstmState& state,
               const RecurrentWeights& weights) {
  LstmState now = state;
  std::vector<Tensor> outputs;
  for (const Tensor& step : inputs_by_step(cx, x, weights)) {
    const Tensor gates = product(cx, now.h, weights.hidden, weights.hidden_bias, step);
    now = lstm_gates(cx, gates, now.c);
    outputs.push_back(now.h);
  }
  return {outputs_of(cx, outputs, state.h), now};
}

Tensor gru_gates(Context& cx, const Tensor& from_input, const Tensor& from_hidden,
                 const Tensor& h) {
  return apply(cx, std::make_unique<GruGates>(), {from_input, from_hidden, h})[0];
}

Tensor gru_cell(Context& cx, const Tensor& x, const Tensor& h, const RecurrentWeights& weights) {
  return gru_gates(cx, product(cx, x, weights.input, weights.input_bias),
                   product(cx, h, weights.hidden, weights.hidden_bias), h);
}

GruSteps gru(Context& cx, const Tensor& x, const Tensor& h, const RecurrentWeights& weights) {
  Tensor now = h;
  std::vector<Tensor> outputs;
  for (const Tensor& step : inputs_by_step(cx, x, weights)) {
    now = gru_gates(cx, step, product(cx, now, weights.hidden, weights.hidden_bias), now);
    outputs.push_back(now);
  }
  return {outputs_of(cx, outputs, h), now};
}

}  // namespace weft::ops
