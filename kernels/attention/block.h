// The tiled loops; internal to kernels/attention. Outputs are handed in with strides of the
// caller's choice (the innermost 1), in the inputs' dtype or in sum_dtype of it.
#pragma once

#include "kernels/attention/attention.h"

namespace weft::attention {

// That shapes and types fit each other, as attention.h says; the functions below do it.
void check_call(const Tensor& q, const Tensor& k, const Tensor& v, const Parameters& parameters);

void forward_into(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                  const Parameters& parameters, const Tensor& output, const Tensor& log_sum_exp);

// output: of the whole, in q's dtype; or an empty handle, where it is not at hand. delta: or an
// empty handle, where only this may need it and the output is at hand. grads.distance_bias: with
// delta alone; an empty handle where it is not wanted.
void backward_into(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                   const Tensor& output, const Tensor& d_output, const Tensor& log_sum_exp,
                   const Tensor& delta, const Parameters& parameters, const BlockGrads& grads);

// The gradient of parameters.bias, contiguous and of its spec. Takes the scores anew.
Tensor bias_gradient(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                     const Tensor& d_output, const Tensor& log_sum_exp, const Tensor& delta,
                     const Parameters& parameters);

// The gradient of parameters.sinks: -sum exp(sink - log_sum_exp) delta over rows and queries.
Tensor sinks_gradient(Context& cx, const Tensor& sinks, const Tensor& log_sum_exp,
                      const Tensor& delta);

// Uninitialized [B, N, T, D] that lies in memory as [B, T, N, D], so that joining the heads again
// costs nothing.
Tensor empty_by_token(Context& cx, const Shape& shape, DType dtype);

}  // namespace weft::attention
