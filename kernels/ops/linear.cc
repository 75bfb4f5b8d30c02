#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rows.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

// The weight as [in, out], a view.
Tensor in_out(const Tensor& weight, WeightLayout layout) {
  return layout == WeightLayout::kInOut ? weight : transposed_view(weight);
}

// Inputs: x, weight, and bias where there is one.
class Linear final : public ForwardOp {
 public:
  explicit Linear(WeightLayout layout) : layout_(layout) {}
  std::string_view name() const override { return "linear"; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor& x = inputs[0];
    const Tensor weight = in_out(inputs[1], layout_);
    WEFT_CHECK(
        weight.shape().dims() == 2 && x.shape().dims() >= 1 && x.shape()[-1] == weight.dim(0),
        "linear of {} with a weight that maps {} to {}", x.shape().to_string(), weight.dim(0),
        weight.dim(1));
    Shape shape = x.shape();
    shape[-1] = weight.dim(1);
    const Strides strides = row_major_strides(shape);
    const Tensor y =
        matmul_values(cx, as_rows(cx, x), weight)
            .view(shape, std::span(strides).first(static_cast<size_t>(shape.dims())), 0);
    if (inputs.size() == 3) add_bias(cx, y, inputs[2]);
    return {y};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    for (size_t i = 0; i < inputs.size(); ++i) wanted_[i] = inputs[i].requires_grad();
    // x is needed for the weight's gradient only, the weight for x's only; of x at least the shape.
    shape_ = inputs[0].shape();
    return {wanted_[1] ? inputs[0] : Tensor(), wanted_[0] ? inputs[1] : Tensor()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads(wanted_[2] ? 3 : 2);
    const Tensor dy = as_rows(cx, output_grads[0]);
    if (wanted_[0]) {
      const Strides strides = row_major_strides(shape_);
      grads[0] = matmul_values(cx, dy, transposed_view(in_out(saved[1], layout_)))
                     .view(shape_, std::span(strides).first(static_cast<size_t>(shape_.dims())), 0);
    }
    if (wanted_[1]) {
      const Tensor x = as_rows(cx, saved[0]);
      grads[1] = layout_ == WeightLayout::kInOut ? matmul_values(cx, transposed_view(x), dy)
                                                 : matmul_values(cx, transposed_view(dy), x);
    }
    if (wanted_[2]) grads[2] = sum(cx, dy, 0);
    return grads;
  }

 private:
  static void add_bias(Context& cx, const Tensor& y, const Tensor& bias) {
    const int64_t width = y.shape()[-1];
    WEFT_CHECK(bias.shape() == Shape{width}, "bias {} of {}", bias.shape().to_string(),
               y.shape().to_string());
    const Tensor values = as_contiguous(cx.pool, bias);
    dispatch_floating(y.dtype(), [&]<typename T>() {
      const T* from = values.data<T>();
      T* to = y.data<T>();
      const int64_t rows = row_count(y.shape());
      cx.pool.parallel_for(rows, 1 + 16384 / (width + 1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
          cpu::rows<T>().add(from, to + row * width, width);
      });
    });
  }

  const WeightLayout layout_;
  Shape shape_;
  bool wanted_[3] = {false, false, false};
};

}  // namespace

Tensor linear(Context& cx, const Tensor& x, const Tensor& weight, const Tensor& bias,
              WeightLayout layout) {
  std::vector<Tensor> inputs = {x, weight};
  if (bias) inputs.push_back(bias);
  return run<Linear>(cx, std::move(inputs), layout);
}

}  // namespace weft::ops
