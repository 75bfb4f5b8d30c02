// Elementwise ops beyond arithmetic and the classic activations: functions of one tensor,
// comparisons, selection. Any strides; results are contiguous and of the input's dtype.
#pragma once

#include "kernels/autograd/op.h"

namespace weft::ops {

// ---- functions of one tensor (elementwise.cc)
Tensor negate(Context& cx, const Tensor& x);
Tensor abs(Context& cx, const Tensor& x);  // slope 0 at 0
Tensor exp(Context& cx, const Tensor& x);
Tensor log(Context& cx, const Tensor& x);
Tensor sqrt(Context& cx, const Tensor& x);
Tensor rsqrt(Context& cx, const Tensor& x);  // 1 / sqrt(x)
Tensor square(Context& cx, const Tensor& x);
Tensor power(Context& cx, const Tensor& x, double exponent);
Tensor clamp(Context& cx, const Tensor& x, double low, double high);  // slope 1 on [low, high]
Tensor softplus(Context& cx, const Tensor& x);                        // log(1 + e^x)
// x < 0: slope * x (Maas et al. 2013).
Tensor leaky_relu(Context& cx, const Tensor& x, double slope = 0.01);
// x < 0: alpha (e^x - 1) (Clevert et al. 2016).
Tensor elu(Context& cx, const Tensor& x, double alpha = 1);
// clamp(x / 6 + 1 / 2, 0, 1), and x times it (Howard et al. 2019).
Tensor hard_sigmoid(Context& cx, const Tensor& x);
Tensor hard_swish(Context& cx, const Tensor& x);
Tensor quick_gelu(Context& cx, const Tensor& x);  // x sigmoid(1.702 x) (Hendrycks, Gimpel 2016)
// elu(x) + 1, without the rounding of e^x - 1 + 1: the feature map of linear attention.
Tensor elu_plus_one(Context& cx, const Tensor& x);
// silu(gate) * up in one pass (Shazeer 2020); equal shapes.
Tensor swiglu(Context& cx, const Tensor& gate, const Tensor& up);

// ---- of two tensors (selection.cc), numpy broadcasting. Where both are equal, each gets half of
// the gradient; NaN where one is NaN.
Tensor minimum(Context& cx, const Tensor& a, const Tensor& b);
Tensor maximum(Context& cx, const Tensor& a, const Tensor& b);
// A mask: uint8, 1 where it holds. Any dtype, the same for both; no gradient.
enum class Comparison { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual };
Tensor compare(Context& cx, const Tensor& a, const Tensor& b, Comparison kind);
// mask (uint8, not 0) ? a : b; all three broadcast.
Tensor where(Context& cx, const Tensor& mask, const Tensor& a, const Tensor& b);

}  // namespace weft::ops
