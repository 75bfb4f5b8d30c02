// Linear maps, fused with what follows them: bias, activation and residual are applied to each tile
// of the product while it is in the cache. The plain composition is matmul, add, activate, add.
//
// Numerical policy: in the order of the composition: product, + bias, activation, residual +. bf16
// is rounded once, at the end, and once where the activation's input is kept; gradients of weight
// and bias are fp32.
#include <algorithm>
#include <array>
#include <type_traits>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/linear_parts.h"

namespace weft::ops {
namespace {

static_assert(static_cast<int>(Activation::kSigmoid) == static_cast<int>(cpu::Curve::kSigmoid));

constexpr int64_t kRowsOfPartial = 32;

// to += each of the rows.
template <typename T>
void add_rows(const T* rows, int64_t count, int64_t width, cpu::Sum<T>* to) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    for (int64_t row = 0; row < count; ++row) {
      cpu::convert().add_bf16_f32(rows + row * width, to, width);
    }
  } else {
    cpu::rows<T>().add_rows(rows, width, count, to, width);
  }
}

// dz = dy curve'(z), or dy where there is no curve and dz is empty; and, where it is wanted, the
// sum of dz over the rows, of which each run of rows is summed in its order while it is in the
// cache.
template <typename T>
Tensor rows_backward(Context& cx, std::optional<Activation> curve, const Tensor& z,
                     const Tensor& dy, const Tensor& dz, bool bias_wanted) {
  using S = cpu::Sum<T>;
  const int64_t rows = dy.dim(0), width = dy.dim(1);
  const int64_t partials = (rows + kRowsOfPartial - 1) / kRowsOfPartial;
  const Tensor sums = Tensor::zeros(
      cx.allocator, {bias_wanted ? std::max<int64_t>(1, partials) : 0, width}, DTypeOf<S>::value);
  const auto each = [&](int64_t row, int64_t count, bool past, S* sum) {
    const int64_t at = row * width;
    const T *from = z.data<T>() + at, *gradient = dy.data<T>() + at;
    const cpu::Target<T> to(dz.data<T>() + at, past);
    const auto kind = static_cast<cpu::Curve>(*curve);
    if (sum == nullptr) {
      cpu::rows<T>().curve_backward(kind, from, gradient, to, count * width);
    } else {
      cpu::rows<T>().curve_backward_sum(kind, from, gradient, to, sum, count, width);
    }
  };
  cx.pool.parallel_for(partials, 1, [&](int64_t begin, int64_t end) {
    const cpu::PastCaches past(curve ? dz.bytes() : 0);
    for (int64_t partial = begin; partial < end; ++partial) {
      const int64_t first = partial * kRowsOfPartial, last = std::min(rows, first + kRowsOfPartial);
      S* const sum = bias_wanted ? sums.data<S>() + partial * width : nullptr;
      if (curve) {
        each(first, last - first, past, sum);
      } else {
        add_rows(dy.data<T>() + first * width, last - first, width, sum);
      }
    }
  });
  return bias_wanted ? sum(cx, sums, 0) : Tensor();
}

// Inputs: the activation's input, or none where there is no activation, and dy. Output: dz; beside
// it, where it is wanted, the sum of dz over the rows.
class RowsBackward final : public Kernel {
 public:
  RowsBackward(std::optional<Activation> activation, bool bias_wanted)
      : activation_(activation), bias_wanted_(bias_wanted) {}
  std::string_view name() const override { return "linear_rows_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor &z = inputs[0], &dy = inputs[1];
    const auto go = [&]<typename T>() {
      bias_gradient_ = rows_backward<T>(cx, activation_, z, dy, outputs[0], bias_wanted_);
    };
    if (dy.dtype() == DType::kBF16) {
      go.template operator()<bfloat16>();
    } else {
      dispatch_floating(dy.dtype(), go);
    }
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor &z = inputs[0], &dy = inputs[1], &dz = outputs[0];
    if (activation_) cuda::backend(cx).activate_backward(*activation_, z, dy, dz);
    if (!bias_wanted_) return;
    const Tensor& result = activation_ ? dz : dy;
    bias_gradient_ = sum(cx, cpu::converted(cx.pool, result, gradient_dtype(result.dtype())), 0);
  }
  const Tensor& bias_gradient() const { return bias_gradient_; }

 private:
  const std::optional<Activation> activation_;
  const bool bias_wanted_;
  Tensor bias_gradient_;
};

// Inputs: rows of x and of dy. Outputs: x^T dy [in, out], and the sums of dy over the rows [out].
class WeightAndBiasGradient final : public Kernel {
 public:
  std::string_view name() const override { return "linear_weight_gradient"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    apart(cx, inputs, outputs);
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::Backend& gpu = cuda::backend(cx);
    if (!gpu.fused_weight_gradient(inputs[0], inputs[1], outputs[0], outputs[1])) {
      apart(cx, inputs, outputs);
    }
  }

 private:
  static void apart(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) {
    const DType dtype = gradient_dtype(inputs[0].dtype());
    outputs[0] = matmul_values(cx, transposed_view(inputs[0]), inputs[1], dtype);
    outputs[1] = sum(cx, cpu::converted(cx.pool, inputs[1], dtype), 0);
  }
};

// Inputs: x, weight, and bias and residual where there are such.
class Linear final : public ForwardOp {
 public:
  Linear(WeightLayout layout, std::optional<Activation> activation, bool bias, bool residual,
         bool recorded)
      : layout_(layout),
        activation_(activation),
        bias_(bias),
        residual_(residual),
        recorded_(recorded) {}
  std::string_view name() const override { return "linear"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor& x = inputs[0];
    const Tensor weight = in_out(matrix_of(cx, inputs[1]), layout_);
    WEFT_CHECK(
        weight.shape().dims() == 2 && x.shape().dims() >= 1 && x.shape()[-1] == weight.dim(0),
        "linear of {} with a weight that maps {} to {}", x.shape().to_string(), weight.dim(0),
        weight.dim(1));
    Shape shape = x.shape();
    shape[-1] = weight.dim(1);
    const Tensor y = Tensor::empty(cx.allocator, shape, x.dtype());
    // The activation's input is kept only where its gradient will be asked for.
    z_ = activation_ && recorded_ ? Tensor::empty(cx.allocator, shape, x.dtype()) : Tensor();
    const Tensor bias = bias_ ? as_contiguous(cx.pool, inputs[2]) : Tensor();
    const Tensor residual = residual_ ? as_contiguous(cx.pool, inputs[bias_ ? 3 : 2]) : Tensor();
    WEFT_CHECK(!bias || bias.shape() == Shape{shape[-1]}, "bias {} of {}", bias.shape().to_string(),
               shape.to_string());
    WEFT_CHECK(!residual || residual.shape() == shape, "residual {} of {}",
               residual.shape().to_string(), shape.to_string());
    into(cx, std::array{as_rows(cx, x), weight, bias, residual}, y, z_);
    return {y};
  }
  // Inputs: rows of x, the weight [in, out], bias, residual. z: the activation's input, where it is
  // kept.
  void into(Context& cx, std::span<const Tensor> inputs, const Tensor& y, const Tensor& z) {
    z_ = z;
    Forward kernel(*this);
    std::array outputs = {y, z};
    run_kernel(cx, kernel, inputs, outputs);
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    for (size_t i = 0; i < inputs.size(); ++i) wanted_[i] = inputs[i].requires_grad();
    // x is needed for the weight's gradient only, the weight for x's only; of x at least the shape.
    shape_ = inputs[0].shape();
    weight_shape_ = inputs[1].shape();
    x_leaf_ = inputs[0].leaf();
    leaves_ = wanted_[1] && inputs[1].leaf() && (!bias_ || inputs[2].leaf());
    return {wanted_[1] ? inputs[0] : Tensor(), wanted_[0] ? inputs[1] : Tensor(), std::move(z_)};
  }

  std::vector<Tensor> leaf_vjp(Context& cx, std::span<const Tensor> saved,
                               std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads(2 + static_cast<size_t>(bias_));
    if (leaves_) parameter_gradients(cx, saved, output_grads, grads);
    return grads;
  }

  // An activation's gradient is computed beside the bias', once.
  bool puts_leaves_off() override { return put_off_ = leaves_ && !activation_; }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads(2 + static_cast<size_t>(bias_) + static_cast<size_t>(residual_));
    if (put_off_) {
      dz_ = as_rows(cx, output_grads[0]);
    } else if (!dz_) {  // leaf_vjp was not called
      parameter_gradients(cx, saved, output_grads, grads);
    }
    const Tensor dz = std::move(dz_);
    if (residual_ && wanted_[bias_ ? 3 : 2]) grads.back() = output_grads[0];
    if (wanted_[0]) {
      const DType dtype = x_leaf_ ? gradient_dtype(dz.dtype()) : dz.dtype();
      const Tensor back = transposed_view(in_out(matrix_of(cx, saved[1]), layout_));
      grads[0] = shaped(matmul_values(cx, dz, back, dtype), shape_);
    }
    return grads;
  }

 private:
  // Those of weight and bias, into grads[1] and [2]; leaves the product's own in dz_.
  void parameter_gradients(Context& cx, std::span<const Tensor> saved,
                           std::span<const Tensor> output_grads, std::span<Tensor> grads) {
    const bool bias_wanted = bias_ && wanted_[2];
    // A GPU's library sums the rows of a right side beside the product.
    const bool with_weight = bias_wanted && wanted_[1] && layout_ == WeightLayout::kInOut &&
                             cx.block_count <= 1 && !cx.device().is_cpu();
    dz_ = product_gradient(cx, activation_, activation_ ? as_rows(cx, saved[2]) : Tensor(),
                           as_rows(cx, output_grads[0]),
                           bias_wanted && !with_weight ? &grads[2] : nullptr);
    if (with_weight) {
      const Tensor x = as_rows(cx, saved[0]);
      const DType dtype = gradient_dtype(x.dtype());
      std::array outputs = {Tensor::empty(cx.allocator, {x.dim(1), dz_.dim(1)}, dtype),
                            Tensor::empty(cx.allocator, {dz_.dim(1)}, dtype)};
      WeightAndBiasGradient kernel;
      run_kernel(cx, kernel, std::array{x, dz_}, outputs);
      grads[1] = shaped(outputs[0], weight_shape_);
      grads[2] = outputs[1];
    } else if (wanted_[1]) {
      const Tensor gradient = weight_gradient(cx, as_rows(cx, saved[0]), dz_, layout_);
      grads[1] = shaped(gradient, weight_shape_);
    }
  }

  // What follows the product in each tile; the products and results lie at the same places.
  template <typename T>
  cpu::TileFunction finish(int64_t width, const Tensor& bias, const Tensor& residual,
                           const Tensor& product, const Tensor& y) const {
    if (!bias && !residual && !activation_) return {};
    return [=, this](const cpu::GemmTile& tile) {
      const cpu::RowKernels<T>& kernels = cpu::rows<T>();
      for (int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
        const int64_t at = row * width + tile.column;
        T* from = product.data<T>() + at;
        T* to = y.data<T>() + at;
        if (bias) kernels.add(bias.data<T>() + tile.column, from, tile.columns);
        if (activation_) {
          kernels.curve(static_cast<cpu::Curve>(*activation_), from, to, tile.columns);
        }
        if (residual) kernels.add(residual.data<T>() + at, to, tile.columns);
      }
    };
  }
  // The same from a tile of fp32 sums; bias fp32.
  cpu::TakeTile<bfloat16> take_bf16(int64_t width, const Tensor& bias, const Tensor& residual,
                                    const Tensor& y) const {
    return [=, this](const cpu::GemmTile& tile, float* sums) {
      const cpu::RowKernels<float>& kernels = cpu::rows<float>();
      for (int64_t i = 0; i < tile.rows; ++i, sums += tile.columns) {
        const int64_t at = (tile.row + i) * width + tile.column;
        if (bias) kernels.add(bias.data<float>() + tile.column, sums, tile.columns);
        if (z_) cpu::round(sums, z_.data<bfloat16>() + at, tile.columns);
        if (activation_) {
          kernels.curve(static_cast<cpu::Curve>(*activation_), sums, sums, tile.columns);
        }
        if (residual) {
          cpu::convert().add_bf16_f32(residual.data<bfloat16>() + at, sums, tile.columns);
        }
        cpu::round(sums, y.data<bfloat16>() + at, tile.columns);
      }
    };
  }

  // Inputs and outputs as into()'s.
  class Forward final : public Kernel {
   public:
    explicit Forward(const Linear& linear) : linear_(linear) {}
    std::string_view name() const override { return "linear"; }
    void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
      const Tensor &rows = inputs[0], &weight = inputs[1], &residual = inputs[3];
      const Tensor &y = outputs[0], &product = outputs[1] ? outputs[1] : y;
      const int64_t width = y.shape()[-1];
      if (rows.dtype() == DType::kBF16) {
        const Tensor bias = inputs[2] ? cpu::converted(cx.pool, inputs[2], DType::kF32) : Tensor();
        tiles_of_product(cx, rows, weight, linear_.take_bf16(width, bias, residual, y));
        return;
      }
      dispatch_floating(rows.dtype(), [&]<typename T>() {
        product_into(cx, rows, weight, as_rows(cx, product),
                     linear_.finish<T>(width, inputs[2], residual, product, y));
      });
    }
    void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
      cuda::Backend& gpu = cuda::backend(cx);
      const Tensor &x = inputs[0], &weight = inputs[1], &bias = inputs[2], &residual = inputs[3];
      const Tensor &y = outputs[0], &product = outputs[1] ? outputs[1] : y;
      const bool curve = linear_.activation_.has_value(), whole = cx.block_count <= 1;
      const bool kept_gelu = linear_.activation_ == Activation::kGeluTanh && outputs[1];
      const Tensor none;
      if (whole && kept_gelu && gpu.fused_linear(x, weight, bias, none, product, y)) {
        if (residual) gpu.binary(Arithmetic::kAdd, y, residual, y);
        return;
      }
      const Tensor& last = curve ? none : residual;
      if (!whole || (!bias && !last) || !gpu.fused_linear(x, weight, bias, last, none, product)) {
        gpu.matmul(x, weight, cx.block_count, as_rows(cx, product));
        if (bias) gpu.binary(Arithmetic::kAdd, product, bias, product);
        if (last) gpu.binary(Arithmetic::kAdd, product, last, product);
      }
      if (curve) gpu.activate(*linear_.activation_, product, y);
      if (curve && residual) gpu.binary(Arithmetic::kAdd, y, residual, y);
    }

   private:
    const Linear& linear_;
  };

  const WeightLayout layout_;
  const std::optional<Activation> activation_;
  const bool bias_, residual_, recorded_;
  Tensor z_;   // between forward() and saves()
  Tensor dz_;  // between leaf_vjp() and vjp()
  Shape shape_, weight_shape_;
  bool x_leaf_ = false;
  bool leaves_ = false;  // weight and bias
  bool put_off_ = false;
  bool wanted_[4] = {false, false, false, false};
};

}  // namespace

Tensor matrix_of(Context& cx, const Tensor& weight) {
  if (weight.shape().dims() <= 2) return weight;
  int64_t others = 1;
  for (const int64_t extent : weight.shape().extents().subspan(1)) others *= extent;
  return shaped(as_contiguous(cx.pool, weight), {weight.dim(0), others});
}

Tensor in_out(const Tensor& weight, WeightLayout layout) {
  return layout == WeightLayout::kInOut ? weight : transposed_view(weight);
}

void linear_into(Context& cx, const Tensor& x, const Tensor& weight, const Tensor& bias,
                 std::optional<Activation> activation, const Tensor& y, const Tensor& z,
                 const Tensor& residual) {
  Linear(WeightLayout::kInOut, activation, static_cast<bool>(bias), static_cast<bool>(residual),
         static_cast<bool>(z))
      .into(cx, std::array{x, weight, bias, residual}, y, z);
}

Tensor product_gradient(Context& cx, std::optional<Activation> activation, const Tensor& z,
                        const Tensor& dy, Tensor* bias_gradient) {
  const bool in_blocks = cx.block_count > 1, with_rows = bias_gradient != nullptr && !in_blocks;
  const Tensor dz = activation ? Tensor::empty(cx.allocator, dy.shape(), dy.dtype()) : Tensor();
  if (activation || with_rows) {
    RowsBackward kernel(activation, with_rows);
    std::array outputs = {dz};
    run_kernel(cx, kernel, std::array{z, dy}, outputs);
    if (with_rows) *bias_gradient = kernel.bias_gradient();
  }
  const Tensor result = activation ? dz : dy;
  if (bias_gradient != nullptr && in_blocks) {
    *bias_gradient = sum(cx, cpu::converted(cx.pool, result, gradient_dtype(result.dtype())), 0);
  }
  return result;
}

Tensor weight_gradient(Context& cx, const Tensor& x, const Tensor& dz, WeightLayout layout) {
  const DType dtype = gradient_dtype(x.dtype());
  return layout == WeightLayout::kInOut ? matmul_values(cx, transposed_view(x), dz, dtype)
                                        : matmul_values(cx, transposed_view(dz), x, dtype);
}

Tensor linear(Context& cx, const Tensor& x, const Tensor& weight, const Tensor& bias,
              WeightLayout layout, std::optional<Activation> activation, const Tensor& residual) {
  std::vector<Tensor> inputs = {x, weight};
  if (bias) inputs.push_back(bias);
  if (residual) inputs.push_back(residual);
  bool recorded = false;
  for (const Tensor& input : inputs) recorded |= cx.tape != nullptr && input.requires_grad();
  return run<Linear>(cx, std::move(inputs), layout, activation, static_cast<bool>(bias),
                     static_cast<bool>(residual), recorded);
}

}  // namespace weft::ops
