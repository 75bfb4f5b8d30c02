// The two halves of ops::linear for whoever takes its rows in parts. Nothing is recorded.
#pragma once

#include <optional>

#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"

namespace weft::ops {

// y := activation(x weight + bias) + residual, x [rows, in], weight [in, out] with any strides, y
// [rows, out] contiguous. bias, z and residual may be empty handles; z, [rows, out] contiguous,
// gets the activation's input; residual, the same, is not y.
void linear_into(Context& cx, const Tensor& x, const Tensor& weight, const Tensor& bias,
                 std::optional<Activation> activation, const Tensor& y, const Tensor& z = Tensor(),
                 const Tensor& residual = Tensor());

// The gradient of the product x weight, given dy, [rows, out] both; z as above. The bias's goes to
// *bias_gradient, where that is given.
Tensor product_gradient(Context& cx, std::optional<Activation> activation, const Tensor& z,
                        const Tensor& dy, Tensor* bias_gradient);

// A weight of more than two dims, as a convolution's whose kernel is all that it is given, as the
// matrix of its first dim and all others together; any other as it is.
Tensor matrix_of(Context& cx, const Tensor& weight);
// The weight as it maps, [in, out]; a view.
Tensor in_out(const Tensor& weight, WeightLayout layout);
// The weight's gradient in its layout, x [rows, in], dz [rows, out]; of half types fp32.
Tensor weight_gradient(Context& cx, const Tensor& x, const Tensor& dz, WeightLayout layout);

}  // namespace weft::ops
