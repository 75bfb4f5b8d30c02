// Attention that knows how far apart tokens are, and whether they are of one segment (Dai et al.
// 2019; Yang et al. 2019): the score of query i and key j is scale times
//   (q_i + u) k_j + (q_i + v) r_{j - i} + (q_i + s) g[i and j are of one segment ? 0 : 1].
// The first term is scaled_dot_product's. The others, which differ from query to query, are added
// up in one pass and given to it as its bias: memory is quadratic in the tokens, one number for
// each row, head, query and key, kept for the backward pass, and as many for its gradient. On a CPU
// products with r are taken for tiles of queries, each of the distances that it has, and are
// shifted into their places row by row as they are stored: nothing stands in memory by query and
// distance. On a GPU they are taken of all distances, for some rows and heads at a time, and
// shifted by a kernel (kernels/cuda/gpu_relative.cc).
//
// Results depend on values and sizes, not on the number of threads; in blocks of rows gradients are
// sums of these, merged in their tree (Context::block_count).
//
// Legend: B batch rows, N heads, Tq queries and Tk keys of a row, D features of a head, R
// distances, Tq + Tk - 1 of queries in a row.
#pragma once

#include "kernels/attention/attention.h"

namespace weft::attention {

struct RelativeTerms {
  // [B or 1, N, R, D]: r of query i and key j at Tq - 1 - i + j. The queries are the last of the
  // keys' tokens: from the largest distance behind a query to the largest before it. Or one of each
  // of several groups of rows, each as many one behind the other.
  Tensor distances;
  // int64 [B, Tq]: at which key's token each query stands instead, in [0, Tk). Then R is 2 Tk - 1,
  // and r of query i and key j at Tk - 1 - places[i] + j. Neighbours that stand near each other are
  // the fastest on a CPU. Empty handle: as above.
  Tensor places;
  Tensor content, position;  // u and v, [N, D]
  // s [N, D] and g [2, N, D], and int64 [B, Tq], [B, Tk]: whose numbers are equal is of one
  // segment. Empty handles, all together: there is no such term.
  Tensor segment, segments;
  Tensor query_segment, key_segment;
  // Above 0: the rows are so many blocks, over which gradients of vectors are summed.
  int blocks = 0;
};

// q [B, N, Tq, D], k [B, N, Tk, D], v [B, N, Tk, Dv] -> [B, N, Tq, Dv]. parameters: without a bias;
// their scale is that of all terms.
Tensor relative_attention(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const RelativeTerms& terms, const Parameters& parameters);

}  // namespace weft::attention
