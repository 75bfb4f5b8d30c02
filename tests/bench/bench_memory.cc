// Ops whose time is that of moving their bytes, beside a plain copy: forward, or (back_*) their
// gradients alone, of a forward pass that was recorded before.
#include <array>
#include <cmath>

#include "kernels/ops/elementwise.h"
#include "kernels/ops/linear_parts.h"
#include "kernels/ops/norms.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/reductions.h"
#include "kernels/ops/rotary.h"
#include "kernels/tensor/strided.h"
#include "tests/bench/bench.h"

namespace weft::bench {
namespace {

using Step = std::function<Tensor(Context&, const Tensor& x, const Tensor& y)>;

// x and y are [rows, width]; y is positive.
struct Inputs {
  explicit Inputs(const Options& options)
      : machine(std::make_shared<Machine>(options.integer("threads"))) {
    flush_denormals();
    Context& cx = machine->plain;
    const Shape shape{options.integer("rows"), options.integer("width")};
    const DType dtype = options.flag("bf16") ? DType::kBF16 : DType::kF32;
    x = ops::cast(cx, machine->random(shape, 1, false), dtype);
    y = ops::cast(cx, ops::square(cx, machine->random(shape, 2, false)), dtype);
  }
  std::shared_ptr<Machine> machine;
  Tensor x, y;
};

Body body_of(const Options& options, const Step& step) {
  return [in = Inputs(options), step] { step(in.machine->plain, in.x, in.y); };
}

// Keeps the op that is recorded, so that its vjp can be called again and again.
class KeptOp final : public Tape {
 public:
  void record(std::unique_ptr<Op> op, std::span<const Tensor> inputs,
              std::span<const Tensor> outputs) override {
    op_ = std::move(op);
    saved_ = op_->saves(inputs, outputs);
    gradients_.resize(outputs.size());
  }
  // y: the gradient of the first result.
  void vjp(Context& cx, const Tensor& y) {
    gradients_[0] = y;
    op_->vjp(cx, saved_, gradients_);
  }

 private:
  std::unique_ptr<Op> op_;
  std::vector<Tensor> saved_, gradients_;
};

// The vjp alone of one op at x, y its gradient.
Body back_of(const Options& options, const Step& step) {
  const Inputs in(options);
  const auto kept = std::make_shared<KeptOp>();
  Context recording = in.machine->plain;
  recording.tape = kept.get();
  Tensor x = in.x.detach(), y = in.y.detach();
  step(recording, x.set_requires_grad(true), y.set_requires_grad(true));
  return [in, kept] { kept->vjp(in.machine->plain, in.y); };
}

Body make_rotary(const Options& options) {
  flush_denormals();
  auto m = std::make_shared<Machine>(options.integer("threads"));
  const int64_t tokens = options.integer("rows"), width = options.integer("width");
  constexpr int64_t kFeatures = 64;
  const Tensor x = m->random({1, width / kFeatures, tokens, kFeatures}, 1, false);
  const Tensor positions = Tensor::empty(*m->allocator, {tokens}, DType::kI64);
  for (int64_t t = 0; t < tokens; ++t) positions.data<int64_t>()[t] = t;
  const Tensor frequencies = Tensor::empty(*m->allocator, {kFeatures / 2}, DType::kF64);
  for (int64_t i = 0; i < kFeatures / 2; ++i) {
    frequencies.data<double>()[i] =
        std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(kFeatures));
  }
  const ops::Angles angles = ops::rotary_angles(m->plain, positions, frequencies, DType::kF32);
  return [=] { ops::rotary(m->plain, x, angles.cos, angles.sin, ops::RotaryForm::kHalves); };
}

// A vector of what a norm has of a row, whose gradient is asked for, too.
Tensor row_of(const Tensor& y, int64_t row) {
  const std::array<int64_t, 1> strides{1};
  return y.detach().view({y.dim(1)}, strides, row * y.dim(1)).set_requires_grad(y.requires_grad());
}

// x [rows, width] as images [rows / 64, 64, width], and a number a channel of y's row.
constexpr int64_t kChannels = 64;
Tensor images_of(const Tensor& x) {
  const int64_t width = x.dim(1);
  const std::array<int64_t, 3> strides{kChannels * width, width, 1};
  return x.detach()
      .view({x.dim(0) / kChannels, kChannels, width}, strides, 0)
      .set_requires_grad(x.requires_grad());
}
Tensor channels_of(const Tensor& y, int64_t row) {
  const std::array<int64_t, 1> strides{1};
  return y.detach().view({kChannels}, strides, row * y.dim(1)).set_requires_grad(y.requires_grad());
}

Maker maker(Step step) {
  return [step = std::move(step)](const Options& options) { return body_of(options, step); };
}
Maker back(Step step) {
  return [step = std::move(step)](const Options& options) { return back_of(options, step); };
}

template <ops::Activation kKind>
Tensor activated(Context& cx, const Tensor& x, const Tensor&) {
  return ops::activate(cx, x, kKind);
}
Tensor normed(Context& cx, const Tensor& x, const Tensor& y) {
  return ops::layer_norm(cx, x, row_of(y, 0), row_of(y, 1), 1e-5);
}
Tensor rms_normed(Context& cx, const Tensor& x, const Tensor& y) {
  return ops::rms_norm(cx, x, row_of(y, 0), 1e-5);
}
Tensor gated(Context& cx, const Tensor& x, const Tensor& y) { return ops::swiglu(cx, x, y); }
Tensor softened(Context& cx, const Tensor& x, const Tensor&) { return ops::softmax(cx, x, -1); }
Tensor log_softened(Context& cx, const Tensor& x, const Tensor&) {
  return ops::log_softmax(cx, x, -1);
}
Tensor exponential(Context& cx, const Tensor& x, const Tensor&) { return ops::exp(cx, x); }
Tensor softplus(Context& cx, const Tensor& x, const Tensor&) { return ops::softplus(cx, x); }
Tensor squared(Context& cx, const Tensor& x, const Tensor&) { return ops::square(cx, x); }
Tensor scaled(Context& cx, const Tensor& x, const Tensor&) { return ops::scale(cx, x, 3); }
Tensor quick_gelu(Context& cx, const Tensor& x, const Tensor&) { return ops::quick_gelu(cx, x); }
Tensor larger(Context& cx, const Tensor& x, const Tensor& y) { return ops::maximum(cx, x, y); }
template <int kDim>
Tensor summed_up_to(Context& cx, const Tensor& x, const Tensor&) {
  return ops::cumulative_sum(cx, x, kDim);
}
Tensor group_normed(Context& cx, const Tensor& x, const Tensor& y) {
  return ops::group_norm(cx, images_of(x), channels_of(y, 0), channels_of(y, 1), 32, 1e-5);
}
Tensor batch_normed(Context& cx, const Tensor& x, const Tensor& y) {
  return ops::batch_norm_training(cx, images_of(x), channels_of(y, 0), channels_of(y, 1), 1e-5);
}
Tensor batch_norm_evaluated(Context& cx, const Tensor& x, const Tensor& y) {
  return ops::batch_norm_evaluation(cx, images_of(x), channels_of(y, 0), channels_of(y, 1), 1e-5,
                                    {channels_of(y, 2), channels_of(y, 3)});
}
Tensor dropped(Context& cx, const Tensor& x, const Tensor&) {
  return ops::dropout(cx, x, 0.1, {1, 2}, {x.shape(), {0, 0}});
}

// Of a linear map with bias and GELU: what its backward pass does before the products.
Tensor bias_gelu_gradient(Context& cx, const Tensor& x, const Tensor& y) {
  Tensor bias;
  return ops::product_gradient(cx, ops::Activation::kGeluTanh, x, y, &bias);
}

}  // namespace

const std::map<std::string, Maker>& memory_makers() {
  static const std::map<std::string, Maker> makers{
      {"copy",
       maker([](Context& cx, const Tensor& x, const Tensor&) { return clone(cx.pool, x); })},
      {"add",
       maker([](Context& cx, const Tensor& x, const Tensor& y) { return ops::add(cx, x, y); })},
      {"exp", maker(exponential)},
      {"log", maker([](Context& cx, const Tensor&, const Tensor& y) { return ops::log(cx, y); })},
      {"swiglu", maker(gated)},
      {"gelu_erf", maker(activated<ops::Activation::kGeluErf>)},
      {"gelu_tanh", maker(activated<ops::Activation::kGeluTanh>)},
      {"rms_norm", maker(rms_normed)},
      {"layer_norm_forward", maker(normed)},
      {"softmax", maker(softened)},
      {"log_softmax", maker(log_softened)},
      {"dropout", maker(dropped)},
      {"tanh", maker(activated<ops::Activation::kTanh>)},
      {"sigmoid", maker(activated<ops::Activation::kSigmoid>)},
      {"softplus", maker(softplus)},
      {"square", maker(squared)},
      {"scale", maker(scaled)},
      {"quick_gelu", maker(quick_gelu)},
      {"maximum", maker(larger)},
      {"cumulative_sum", maker(summed_up_to<1>)},
      {"cumulative_columns", maker(summed_up_to<0>)},
      {"group_norm", maker(group_normed)},
      {"batch_norm", maker(batch_normed)},
      {"batch_norm_evaluation", maker(batch_norm_evaluated)},
      {"back_tanh", back(activated<ops::Activation::kTanh>)},
      {"back_sigmoid", back(activated<ops::Activation::kSigmoid>)},
      {"back_softplus", back(softplus)},
      {"back_square", back(squared)},
      {"back_quick_gelu", back(quick_gelu)},
      {"back_maximum", back(larger)},
      {"back_group_norm", back(group_normed)},
      {"back_batch_norm", back(batch_normed)},
      {"back_bias_gelu", maker(bias_gelu_gradient)},
      {"back_exp", back(exponential)},
      {"back_swiglu", back(gated)},
      {"back_gelu_erf", back(activated<ops::Activation::kGeluErf>)},
      {"back_gelu_tanh", back(activated<ops::Activation::kGeluTanh>)},
      {"back_rms_norm", back(rms_normed)},
      {"back_layer_norm", back(normed)},
      {"back_softmax", back(softened)},
      {"back_log_softmax", back(log_softened)},
      {"sum_rows",
       maker([](Context& cx, const Tensor& x, const Tensor&) { return ops::sum(cx, x, 1); })},
      {"sum_columns",
       maker([](Context& cx, const Tensor& x, const Tensor&) { return ops::sum(cx, x, 0); })},
      {"argmax",
       maker([](Context& cx, const Tensor& x, const Tensor&) { return ops::argmax(cx, x, 1); })},
      {"rotary", make_rotary}};
  return makers;
}

}  // namespace weft::bench
