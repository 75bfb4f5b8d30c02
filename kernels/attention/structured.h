// Structured self-attention (Lin et al. 2017): a sentence as R weighted sums of its tokens.
//
// Legend: B batch rows, T tokens, D features, A hidden features, R hops.
#pragma once

#include "kernels/attention/scores.h"

namespace weft::attention {

// weights = softmax over the tokens of W2 tanh(W1 h), context [B, R, D] = weights h, weights [B, R,
// T]: h [B, T, D], W1 [A, D], W2 [R, A]; valid: uint8 [B, T] or an empty handle. A row without a
// valid token gives zeros.
Attended structured_self_attention(Context& cx, const Tensor& h, const Tensor& w1, const Tensor& w2,
                                   const Tensor& valid = Tensor());

// The sum over rows of |weights weights^T - I|^2 (Frobenius), which keeps the hops apart. Scalar,
// F32 for half types.
Tensor structured_penalty(Context& cx, const Tensor& weights);

}  // namespace weft::attention
