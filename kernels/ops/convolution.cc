// Three kernels, each a convolution seen from another side: y of x and weight, x's gradient of y's
// and weight, weight's of x and y's. A transposed convolution is the second as an op.
#include "kernels/ops/convolution.h"

#include <algorithm>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/convolution.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/reductions.h"

namespace weft::ops {
namespace {

using Sizes = cpu::ConvolutionSizes;
using Pair = Sizes::Pair;

// The number of each of two dims; of one dim, the first is `rest`.
Pair pair_of(const std::vector<int64_t>& numbers, int dims, int64_t absent, int64_t rest) {
  WEFT_CHECK(numbers.empty() || static_cast<int>(numbers.size()) == dims,
             "{} numbers for {} spatial dims", numbers.size(), dims);
  Pair pair{rest, absent};
  for (int dim = 0; dim < dims; ++dim) {
    pair[static_cast<size_t>(2 - dims + dim)] =
        numbers.empty() ? absent : numbers[static_cast<size_t>(dim)];
  }
  return pair;
}

Pair extents_of(const Shape& shape) {
  return shape.dims() == 3 ? Pair{1, shape[2]} : Pair{shape[2], shape[3]};
}

// A convolution of x to y; which of the two extents follows from the other is the caller's.
struct Form {
  Pair stride, before, after, dilation, kernel;
  int64_t groups;

  Form(const ConvolutionForm& form, const Shape& weight)
      : stride(pair_of(form.stride, weight.dims() - 2, 1, 1)),
        before(pair_of(form.before, weight.dims() - 2, 0, 0)),
        after(form.after.empty() ? before : pair_of(form.after, weight.dims() - 2, 0, 0)),
        dilation(pair_of(form.dilation, weight.dims() - 2, 1, 1)),
        kernel(extents_of(weight)),
        groups(form.groups) {
    for (const size_t dim : {0U, 1U}) {
      WEFT_CHECK(stride[dim] > 0 && dilation[dim] > 0 && before[dim] >= 0 && after[dim] >= 0 &&
                     kernel[dim] > 0,
                 "a convolution of stride {}, dilation {}, padding {} and {}, kernel {}",
                 stride[dim], dilation[dim], before[dim], after[dim], kernel[dim]);
    }
    WEFT_CHECK(groups > 0, "{} groups", groups);
  }
  int64_t reach(size_t dim) const { return dilation[dim] * (kernel[dim] - 1) + 1; }
  Sizes sizes(int64_t samples, int64_t channels, int64_t out_channels, Pair in, Pair out) const {
    return {samples, groups, channels, out_channels, in, out, kernel, stride, before, dilation};
  }
};

Shape shape_of(int64_t samples, int64_t channels, Pair extents, int dims) {
  if (dims == 3) return {samples, channels, extents[1]};
  return {samples, channels, extents[0], extents[1]};
}

void check_operands(std::string_view op, const Tensor& x, const Tensor& weight) {
  const int dims = x.shape().dims();
  WEFT_CHECK((dims == 3 || dims == 4) && weight.shape().dims() == dims, "{} of {} by {}", op,
             x.shape().to_string(), weight.shape().to_string());
}

Sizes sizes_of(const Tensor& x, const Tensor& weight, const ConvolutionForm& form) {
  check_operands("convolution", x, weight);
  const Form f(form, weight.shape());
  const Pair in = extents_of(x.shape());
  Pair out;
  for (const size_t dim : {0U, 1U}) {
    const int64_t room = in[dim] + f.before[dim] + f.after[dim] - f.reach(dim);
    WEFT_CHECK(room >= 0, "a convolution of {} by {}: {} places for a reach of {}",
               x.shape().to_string(), weight.shape().to_string(), room + f.reach(dim),
               f.reach(dim));
    out[dim] = room / f.stride[dim] + 1;
  }
  WEFT_CHECK(x.dim(1) % f.groups == 0 && weight.dim(0) % f.groups == 0 &&
                 weight.dim(1) == x.dim(1) / f.groups,
             "a convolution of {} by {} in {} groups", x.shape().to_string(),
             weight.shape().to_string(), f.groups);
  return f.sizes(x.dim(0), x.dim(1), weight.dim(0), in, out);
}

// Those of the convolution whose gradient it is: x is its y.
Sizes transposed_sizes_of(const Tensor& x, const Tensor& weight, const ConvolutionForm& form,
                          const std::vector<int64_t>& output_padding) {
  check_operands("transposed_convolution", x, weight);
  const Form f(form, weight.shape());
  const Pair out = extents_of(x.shape());
  const Pair more = pair_of(output_padding, weight.shape().dims() - 2, 0, 0);
  Pair in;
  for (const size_t dim : {0U, 1U}) {
    in[dim] =
        (out[dim] - 1) * f.stride[dim] - f.before[dim] - f.after[dim] + f.reach(dim) + more[dim];
    WEFT_CHECK(in[dim] > 0 && more[dim] >= 0 && more[dim] < f.stride[dim],
               "a transposed convolution of {} by {}: extent {}, output padding {} of a stride {}",
               x.shape().to_string(), weight.shape().to_string(), in[dim], more[dim],
               f.stride[dim]);
  }
  WEFT_CHECK(x.dim(1) == weight.dim(0) && x.dim(1) % f.groups == 0,
             "a transposed convolution of {} by {} in {} groups", x.shape().to_string(),
             weight.shape().to_string(), f.groups);
  return f.sizes(x.dim(0), weight.dim(1) * f.groups, x.dim(1), in, out);
}

// f.operator()<T>() with the type that the kernel computes in: bf16 where `in_bf16`, what it has no
// code for in fp32 on copies. Inputs may be empty handles.
template <typename F>
void compute(Context& cx, std::span<const Tensor> inputs, Tensor& output, bool in_bf16, F&& f) {
  std::vector<Tensor> plain;
  for (const Tensor& input : inputs) plain.push_back(input ? as_contiguous(cx.pool, input) : input);
  const DType dtype = plain[0].dtype();
  if (dtype == DType::kBF16 && in_bf16) return f.template operator()<bfloat16>(plain, output);
  if (!is_half(dtype)) {
    return dispatch_floating(dtype, [&]<typename T>() { f.template operator()<T>(plain, output); });
  }
  for (Tensor& input : plain) {
    if (input) input = cpu::converted(cx.pool, input, DType::kF32);
  }
  Tensor wide = output;
  if (is_half(output.dtype())) wide = Tensor::empty(cx.allocator, output.shape(), DType::kF32);
  f.template operator()<float>(plain, wide);
  if (is_half(output.dtype())) {
    copy_into(cx.pool, cpu::converted(cx.pool, wide, output.dtype()), output);
  }
}

// Inputs: x, weight, bias (or an empty handle).
class Convolve final : public Kernel {
 public:
  explicit Convolve(const Sizes& sizes) : sizes_(sizes) {}
  std::string_view name() const override { return "convolution"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    compute(cx, inputs, outputs[0], cpu::convolves_in_bf16(sizes_),
            [&]<typename T>(std::span<const Tensor> in, const Tensor& y) {
              cpu::convolve<T>(cx.pool, sizes_, in[0].data<T>(), in[1].data<T>(),
                               in[2] ? in[2].data<T>() : nullptr, y.data<T>());
            });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).convolve(sizes_, inputs[0], inputs[1], inputs[2], outputs[0]);
  }

 private:
  const Sizes sizes_;
};

// Inputs: y's gradient, weight.
class ConvolveBack final : public Kernel {
 public:
  explicit ConvolveBack(const Sizes& sizes) : sizes_(sizes) {}
  std::string_view name() const override { return "convolution_back"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    compute(cx, inputs, outputs[0], cpu::convolves_back_in_bf16(sizes_),
            [&]<typename T>(std::span<const Tensor> in, const Tensor& dx) {
              cpu::convolve_back<T>(cx.pool, sizes_, in[0].data<T>(), in[1].data<T>(),
                                    dx.data<T>());
            });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).convolve_back(sizes_, inputs[0], inputs[1], outputs[0]);
  }

 private:
  const Sizes sizes_;
};

// Inputs: x, y's gradient; the output is fp32 where they are of a half type.
class ConvolveWeights final : public Kernel {
 public:
  explicit ConvolveWeights(const Sizes& sizes) : sizes_(sizes) {}
  std::string_view name() const override { return "convolution_weights"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    compute(cx, inputs, outputs[0], cpu::convolves_in_bf16(sizes_),
            [&]<typename T>(std::span<const Tensor> in, const Tensor& dweight) {
              cpu::convolve_weights<T>(cx.pool, cx.allocator, sizes_, cx.block_count,
                                       in[0].data<T>(), in[1].data<T>(),
                                       dweight.data<cpu::WeightSum<T>>());
            });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).convolve_weights(sizes_, cx.block_count, inputs[0], inputs[1], outputs[0]);
  }

 private:
  const Sizes sizes_;
};

Tensor bias_gradient(Context& cx, const Tensor& dy) {
  std::vector<int> dims{0};
  for (int dim = 2; dim < dy.shape().dims(); ++dim) dims.push_back(dim);
  return sum(cx, cast(cx, dy, gradient_dtype(dy.dtype())), dims);
}

// Inputs: x, weight.
class Convolution final : public ForwardOp {
 public:
  Convolution(const Sizes& sizes, bool transposed) : sizes_(sizes), transposed_(transposed) {}
  std::string_view name() const override {
    return transposed_ ? "transposed_convolution" : "convolution";
  }
  bool native(DType half) const override {
    return half == DType::kBF16 &&
           (transposed_ ? cpu::convolves_back_in_bf16(sizes_) : cpu::convolves_in_bf16(sizes_));
  }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor &x = inputs[0], &weight = inputs[1],
                 bias = inputs.size() > 2 ? inputs[2] : Tensor();
    const int dims = x.shape().dims();
    if (!transposed_) {
      const Shape shape = shape_of(sizes_.samples, sizes_.out_channels, sizes_.out, dims);
      return {run_kernel(cx, Convolve(sizes_), {x, weight, bias}, {shape, x.dtype()})};
    }
    const Shape shape = shape_of(sizes_.samples, sizes_.channels, sizes_.in, dims);
    return {run_kernel(cx, ConvolveBack(sizes_), {x, weight}, {shape, x.dtype()})};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    for (const Tensor& input : inputs) wanted_.push_back(input.requires_grad());
    return {inputs[0], inputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor &x = saved[0], &weight = saved[1], &dy = output_grads[0];
    std::vector<Tensor> grads(wanted_.size());
    if (wanted_[0] && transposed_) {
      grads[0] = run_kernel(cx, Convolve(sizes_), {dy, weight, Tensor()}, x.spec());
    } else if (wanted_[0]) {
      grads[0] = run_kernel(cx, ConvolveBack(sizes_), {dy, weight}, x.spec());
    }
    if (wanted_[1]) {
      const Tensor &from = transposed_ ? dy : x, &to = transposed_ ? x : dy;
      const TensorSpec spec{weight.shape(), gradient_dtype(weight.dtype())};
      grads[1] = run_kernel(cx, ConvolveWeights(sizes_), {from, to}, spec);
    }
    if (wanted_.size() > 2 && wanted_[2]) grads[2] = bias_gradient(cx, dy);
    return grads;
  }

 private:
  const Sizes sizes_;
  const bool transposed_;
  std::vector<bool> wanted_;
};

// bias [O] beside [N, O, ..].
Tensor by_channel(Context& cx, const Tensor& bias, int dims) {
  Shape shape{bias.dim(0)};
  for (int dim = 2; dim < dims; ++dim) shape.push_back(1);
  return reshape(cx, bias, shape);
}

void check_bias(const Tensor& bias, int64_t channels) {
  WEFT_CHECK(!bias || bias.shape() == Shape{channels}, "a bias {} of {} channels",
             bias.shape().to_string(), channels);
}

}  // namespace

ConvolutionForm causal_form(int64_t kernel, int64_t dilation) {
  return {.before = {dilation * (kernel - 1)}, .after = {0}, .dilation = {dilation}};
}

Tensor convolution(Context& cx, const Tensor& x, const Tensor& weight, const Tensor& bias,
                   const ConvolutionForm& form) {
  const Sizes sizes = sizes_of(x, weight, form);
  check_bias(bias, sizes.out_channels);
  std::vector<Tensor> inputs{x, weight};
  if (bias) inputs.push_back(bias);
  return run<Convolution>(cx, std::move(inputs), sizes, false);
}

Tensor transposed_convolution(Context& cx, const Tensor& x, const Tensor& weight,
                              const Tensor& bias, const ConvolutionForm& form,
                              const std::vector<int64_t>& output_padding) {
  const Sizes sizes = transposed_sizes_of(x, weight, form, output_padding);
  check_bias(bias, sizes.channels);
  const Tensor y = run<Convolution>(cx, {x, weight}, sizes, true);
  return bias ? add(cx, y, by_channel(cx, bias, x.shape().dims())) : y;
}

}  // namespace weft::ops
