// Attention over a sequence that is cut along the sequence axis (Liu et al. 2023): each rank keeps
// its queries, and the key/value blocks go round. Partial results are merged by their log-sum-exp;
// the backward pass sends the blocks round again and their gradients back to their owners.
//
// At shift s a rank sends its own block s places on and receives the block from s places back, so
// what visits it never has to be passed on.
//
// Thread safety: the rank's compute thread; all ranks of the axis call it together. Ownership: the
// communicator outlives the tape.
// Invariants: 1. never more than two key/value blocks on a rank: its own and the visiting one (and
// as many blocks of their gradients, plus one on its way, in the backward pass). 2. blocks are
// merged in the order of shifts 0, 1, ..., so results repeat bit for bit on the same axis size. 3.
// of bf16 inputs, partial results and their gradients are fp32, also on their way.
#pragma once

#include "kernels/attention/attention.h"
#include "worker/parallel/communicator.h"

namespace weft::parallel {

// q [B, N, T, D], k [B, Nk, T, D] and v [B, Nk, T, Dv] with T = part_of(tokens, size, rank).length
// (zero is fine) -> [B, N, T, Dv]. Without bias, sinks and arbitrary mask. The tensors of
// parameters.visibility are this rank's parts, [B, T]; those of keys travel with their block, and
// are present on every rank or on none. Absent positions count from part_of(...).start, so that
// they are global; parameters.dropout: queries, keys, first_query and first_key are set here from
// `tokens`. Size one is attention::scaled_dot_product.
Tensor ring_attention(Context& cx, Communicator& sequence, const Tensor& q, const Tensor& k,
                      const Tensor& v, int64_t tokens, const attention::Parameters& parameters);

}  // namespace weft::parallel
