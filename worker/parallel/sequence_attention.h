// Attention over rows whose tokens are spread over the sequence axis, a grid of two ways to do it:
//   ring     keys and values come to the queries (ring.h)
//   Ulysses  queries, keys and values are exchanged so that each rank has all tokens of some heads,
//            and the result back again (head_exchange.h; Jacobs et al. 2023)
// Ranks of one Ulysses group share their tokens' attention by heads; groups form rings.
//
// Thread safety: the rank's compute thread; all ranks of the axis call it together. Ownership: the
// mesh outlives the tape.
#pragma once

#include "kernels/attention/attention.h"
#include "worker/parallel/mesh.h"
#include "worker/parallel/sequence_layout.h"

namespace weft::parallel {

// Of topology-invariant training: the model's heads of queries are so many blocks, of which the
// ranks of the tensor axis have consecutive ones each, and of theirs again those that exchange
// heads (blocked_head_parts()). Where a block ends between heads of queries that read the same head
// of keys, the gradient of that has a term of each heads_of_term() of them; terms of a block are
// added up in their order, those of the blocks as a tree, of which ranks of the tensor axis that
// have the same head have a node each.
struct KeyTerms {
  int blocks = 0;                    // 0: other training
  int64_t heads = 0, key_heads = 0;  // of the model
};

// q [B, N, Tl, D], k [B, Nk, Tl, D] and v [B, Nk, Tl, Dv], Tl tokens of this rank by `layout` (zero
// is fine), N and Nk the heads that every rank of the axis has -> [B, N, Tl, Dv]. Without bias,
// sinks and arbitrary mask. parameters is of the whole: visibility's tensors are [B, all tokens],
// the same on every rank of the axis; absent positions count from the start of the row;
// dropout.first_head is of these N heads; its queries, keys and their places are set here. The
// gradients of heads of keys that several ranks hold are added up in fp32 (or fp64). distance_bias
// has these N heads, the same on every rank of the axis; its gradient is this rank's term of the
// sum over the axis, as that of any parameter which each rank has whole; in topology-invariant
// training the axis has one rank then. A mesh with one rank on the axis is, but for terms,
// attention::scaled_dot_product.
Tensor sequence_attention(Context& cx, const Mesh& mesh, const SequenceLayout& layout,
                          const Tensor& q, const Tensor& k, const Tensor& v,
                          const attention::Parameters& parameters, const KeyTerms& terms = {});
// The same of keys and values of other rows, which have a layout of their own.
Tensor sequence_attention(Context& cx, const Mesh& mesh, const SequenceLayout& queries,
                          const SequenceLayout& keys, const Tensor& q, const Tensor& k,
                          const Tensor& v, const attention::Parameters& parameters,
                          const KeyTerms& terms = {});

}  // namespace weft::parallel
