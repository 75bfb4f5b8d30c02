// Scaled dot-product attention, softmax(scale * q k^T + ...) v (Vaswani et al. 2017), computed in
// tiles with a running maximum and sum (Dao et al. 2022), so that the score matrix never exists
// whole and tiles that nobody sees cost nothing. Its plain composition is the oracle of its tests.
// A query that may see nothing gives zeros and takes zero gradients.
//
// Gradients take delta = sum(output * d_output) from the output as it was returned, as
// FlashAttention-2 does (Dao 2023). With dropout in bf16 the scores of a query that sees one key
// therefore take a gradient of a rounding, where it is 0: the output, value / (1 - rate), is no
// bf16 number. That is about the size of other queries' errors, and gradients as a whole are nearer
// to float64's than those of the composition in bf16; the digits that the output lost would take
// as much memory again as it does. In any precision delta and the gradient of a weight are sums
// over features that round apart, so that what is left of their difference where a query trusts one
// key alone is about a rounding of the larger of the two; the composition leaves 0 there.
//
// Results depend on values and sizes, not on the number of threads.
//
// Legend: B batch rows, N heads, Nk heads of keys and values, Tq and Tk tokens, D features of a
// head, Dv features of a value.
#pragma once

#include <vector>

#include "kernels/autograd/op.h"
#include "kernels/ops/random.h"

namespace weft::attention {

// Who sees whom. Key j is visible to query i of the same row iff
//   key_valid[b, j], and the documents are equal, and mask[b, n, i, j], and
//   key_position[b, j] is in [query_position[b, i] - window_left, query_position[b, i] +
//   window_right]; causal: nothing later than query_position, whatever window_right says.
// Absent handles: all valid, positions 0, 1, 2, ..., one document, no mask. -1: no bound. int64
// tensors, less than 2^30 apart within a row; but key_valid and mask uint8.
// What key_valid hides counts for nothing on a CPU, NaN and infinities too; on a GPU keys and
// values there have to be finite, as weights of 0 multiply them.
struct Visibility {
  bool causal = false;
  int64_t window_left = -1, window_right = -1;
  Tensor query_position;  // [B, Tq]
  Tensor key_position;    // [B, Tk]
  Tensor key_valid;       // [B, Tk]
  Tensor query_document;  // [B, Tq]
  Tensor key_document;    // [B, Tk]
  Tensor mask;            // [B or 1, N or 1, Tq, Tk]
};

// Dropout of the attention weights, keyed by the global (row, head, query, key) index.
struct WeightDropout {
  double rate = 0;
  RandomKey key;
  int64_t rows = 0, heads = 0, queries = 0, keys = 0;  // global extents
  int64_t first_row = 0, first_head = 0;               // of this shard
  int64_t first_query = 0, first_key = 0;              // of this block
  // int64 [Tq], [Tk]: where each token of the block stands in the whole; absent: from first_* on.
  Tensor query_index, key_index;
};

// For rows that a bias as low as a dtype's lowest number masks as a whole: their scores are equal,
// and the log of their sum still has digits for how many there are.
constexpr double kLeastScore = -0x1p14;

// The score of query i and key j is, with s = scale * q_i k_j:
//   s, or soft_cap * tanh(s / soft_cap) where soft_cap > 0 (Gemma Team 2024),
//   - alibi_slopes[n] * |key_position - query_position| (Press et al. 2022), where there are
//   slopes,
//   + distance_bias[n, R + clamp(key_position - query_position, -R, R)], where there is one: the
//   relative position bias of Raffel et al. 2020, its buckets laid out by distance. Of several
//   groups of rows, each as many one behind the other, each has a table,
//   + bias[b, n, i, j], where there is one, all together then at least kLeastScore (a row all of
//   whose scores are below it is even); but -infinity hides.
// A sink adds exp(sinks[n]) to the sum below the fraction line of its head (Xiao et al. 2024), so
// that weights may sum to less than 1.
struct Parameters {
  double scale = 1;
  double soft_cap = 0;
  std::vector<double> alibi_slopes;  // [N]
  Tensor bias;                       // [B or 1, N or 1, Tq, Tk], q's dtype; differentiable
  Tensor distance_bias;              // [N, 2 R + 1] or [groups, N, 2 R + 1], as bias
  Tensor sinks;                      // [N], q's dtype; differentiable
  Visibility visibility;
  WeightDropout dropout;
};

// q [B, N, Tq, D], k [B, Nk, Tk, D], v [B, Nk, Tk, Dv] with N a multiple of Nk (grouped queries;
// Nk = 1: multi-query) -> [B, N, Tq, Dv].
Tensor scaled_dot_product(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const Parameters& parameters);

// One block of keys of a larger attention; the pieces that ring attention is made of. Not recorded.
// parameters.bias, .sinks and .visibility.mask are for the whole only and are refused; a bias by
// distance is for blocks, too.
struct Partial {
  Tensor output;       // [B, N, Tq, Dv], normalized within what has been merged so far
  Tensor log_sum_exp;  // [B, N, Tq]; -infinity where nothing was visible
};                     // both F32, or F64 for F64 inputs
Partial block_forward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                      const Parameters& parameters);
// into := into merged with other, in place.
void merge(Context& cx, Partial& into, const Partial& other);
struct BlockGrads {
  Tensor q, k, v;
  Tensor distance_bias;  // this block's part of the sum; absent without a table
};
// Gradients of one block, in the dtype of Partial, given the whole attention's log_sum_exp and
// delta = row_dots(output, d_output).
BlockGrads block_backward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const Tensor& d_output, const Tensor& log_sum_exp, const Tensor& delta,
                          const Parameters& parameters);

// sum(a * b) over the last dim of [B, N, T, D] -> [B, N, T] in sum_dtype.
Tensor row_dots(Context& cx, const Tensor& a, const Tensor& b);

// The dtype of sums over elements of `dtype`: F64 for F64, else F32.
constexpr DType sum_dtype(DType dtype) { return dtype == DType::kF64 ? DType::kF64 : DType::kF32; }

}  // namespace weft::attention
