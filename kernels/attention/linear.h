// Linear attention (Katharopoulos et al. 2020): with the feature map phi(x) = elu(x) + 1,
//   y_i = sum_j (phi(q_i) . phi(k_j)) v_j / sum_j (phi(q_i) . phi(k_j))
// whose sums over j are taken first, so that time and memory are linear in the tokens. phi(x) is
// exp(x) below 0: where all features of a query and its keys add up to less than -87, the products
// underflow in single and half precision and the query gives zeros, as one that sees no key does.
//
// Legend: B batch rows, N heads, Tq and Tk tokens, D features of a head, Dv of a value.
#pragma once

#include "kernels/autograd/op.h"

namespace weft::attention {

// q [B, N, Tq, D], k [B, N, Tk, D], v [B, N, Tk, Dv], key_valid uint8 [B, Tk] or an empty handle ->
// [B, N, Tq, Dv]. causal: j <= i, and Tq = Tk. A query that sees no key gives zeros.
Tensor linear_attention(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v, bool causal,
                        const Tensor& key_valid = Tensor());

// y_i = sum over j <= i (reversed: j >= i) of (q_i . k_j) v_j, without the scores in memory: q, k
// [.., T, D], v [.., T, M] -> [.., T, M]. Tokens are taken in chunks: within one the scores of all
// pairs, between them the sum of k_j v_j^T, [D, M].
Tensor prefix_product(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                      bool reversed = false);

}  // namespace weft::attention
