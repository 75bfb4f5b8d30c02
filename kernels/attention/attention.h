// Scaled dot-product attention, softmax(scale * q k^T) v (Vaswani et al. 2017), computed in blocks
// of keys with a running maximum and sum (Dao et al. 2022), so that the score matrix never exists
// whole. Its plain composition is the oracle of its tests. A query that may see nothing gives
// zeros.
//
// Legend: B batch rows, N heads, Tq and Tk tokens, D features of a head.
#pragma once

#include "kernels/autograd/op.h"
#include "kernels/ops/random.h"

namespace weft::attention {

// Who sees whom. Key j is visible to query i of the same row iff key_valid[b, j] and (not causal or
// key_position[b, j] <= query_position[b, i]) and the documents are equal. Absent handles: all
// valid, positions 0, 1, 2, ..., one document. int64 tensors but key_valid (uint8).
struct Visibility {
  bool causal = false;
  Tensor query_position;  // [B, Tq]
  Tensor key_position;    // [B, Tk]
  Tensor key_valid;       // [B, Tk]
  Tensor query_document;  // [B, Tq]
  Tensor key_document;    // [B, Tk]
};

// Dropout of the attention weights, keyed by the global (row, head, query, key) index.
struct WeightDropout {
  double rate = 0;
  RandomKey key;
  int64_t rows = 0, heads = 0, queries = 0, keys = 0;  // global extents
  int64_t first_row = 0, first_head = 0;               // of this shard
  int64_t first_query = 0, first_key = 0;              // of this block
};

struct Parameters {
  double scale = 1;
  Visibility visibility;
  WeightDropout dropout;
};

// q [B, N, Tq, D], k and v [B, Nk, Tk, D] with N a multiple of Nk (grouped queries) -> [B, N, Tq,
// D].
Tensor scaled_dot_product(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const Parameters& parameters);

// One block of keys of a larger attention; the pieces that ring attention is made of. Not recorded.
struct Partial {
  Tensor output;       // [B, N, Tq, D], normalized within what has been merged so far; fp32 or fp64
  Tensor log_sum_exp;  // [B, N, Tq]; -infinity where nothing was visible
};
Partial block_forward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                      const Parameters& parameters);
// into := into merged with other, in place.
void merge(Context& cx, Partial& into, const Partial& other);
struct BlockGrads {
  Tensor q, k, v;
};
// Gradients of one block, given the whole attention's log_sum_exp and delta = sum(output *
// d_output) over D, [B, N, Tq].
BlockGrads block_backward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const Tensor& d_output, const Tensor& log_sum_exp, const Tensor& delta,
                          const Parameters& parameters);

}  // namespace weft::attention
