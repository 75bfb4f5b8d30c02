// Local attention: a query sees the keys near a place.
//
// Legend: B batch rows, N heads, Tq queries, Tk keys, T tokens, D features, Dv features of a value,
// A features of the prediction.
#pragma once

#include "kernels/attention/scores.h"

namespace weft::attention {

// ---- around a place of each query (Luong et al. 2015, section 3.2); scores [B, Tq, Tk], values
// [B, Tk, Dv]. Keys outside of [p - half_width, p + half_width] are hidden; half_width > 0.

// p = first_query + i for query i: source and target run alike.
Attended local_monotonic(Context& cx, const Tensor& scores, const Tensor& values, double half_width,
                         const Tensor& visible = Tensor(), int64_t first_query = 0);

// p = position [B, Tq], and the weights, softmax within the window, are multiplied by
// exp(-(s - p)^2 / (2 (half_width / 2)^2)) at key s; they are not normalized again. The gradient of
// the position is the bell's alone.
Attended local_predictive(Context& cx, const Tensor& scores, const Tensor& values,
                          const Tensor& position, double half_width,
                          const Tensor& visible = Tensor());

// S sigmoid(v . tanh(W q)): q [B, Tq, D], W [A, D], v [A], S = lengths int64 [B] -> [B, Tq], F32
// for half types, which cannot count far.
Tensor predicted_position(Context& cx, const Tensor& q, const Tensor& weight, const Tensor& v,
                          const Tensor& lengths);

// ---- scaled dot products of neighbours: q, k [B, N, T, D], v [B, N, T, Dv]; time and memory are
// linear in T. causal: no key after the query.

// |i - j| <= width (the sliding window of Beltagy et al. 2020).
Tensor window_attention(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                        double scale, int64_t width, bool causal = false);
// Within blocks of `length` tokens (the last may be shorter): T / length times fewer scores.
Tensor block_attention(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                       int64_t length, bool causal = false);

}  // namespace weft::attention
