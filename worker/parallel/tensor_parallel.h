// Tensor parallelism of a transformer block (Shoeybi et al. 2019) with sequence parallelism of what
// lies between the products (Korthikanti et al. 2022).
//
// Legend: B batch rows, T tokens of this rank's part of the sequence axis, t ranks of the tensor
// axis, H hidden, V vocabulary. Along the tensor axis weights are cut by part_of(): uneven and
// empty shards are fine.
//
// Between blocks, activations are [B, T, H], replicated over the tensor axis; with
// sequence_parallel they are [B, part_of(T, t, rank), H], split along tokens. Every gradient that
// backward() leaves on a parameter, shard or replicated, is complete over the tensor axis; no sum
// over it is left to do.
//
// Thread safety and ownership: as collective_ops.h.
#pragma once

#include <span>
#include <vector>

#include "kernels/ops/ops.h"
#include "worker/parallel/collective_ops.h"

namespace weft::parallel {

// One forward pass's view of the tensor axis. A value; comm outlives the tape.
struct TensorAxis {
  Communicator& comm;
  bool sequence_parallel = false;
  int64_t tokens = 0;  // T, the extent whose parts the ranks hold; needed with sequence_parallel
  // Above 0: topology-invariant (blocked.h), over so many blocks; what lies between blocks of the
  // model has one row of all the tokens, [1, T, H] with T those of all rows.
  int blocks = 0;
  Communicator* replicas = nullptr;  // then: the ranks that share the batch's tokens out
  // Products are cut for their communication to run beside them (overlapped_linear.h) where each
  // rank's part of T is at least so long.
  int64_t overlapped_tokens_min = 256;

  // Blocks of the replica's tokens, of a rank's tokens between blocks, of a rank's features.
  int token_blocks() const { return blocks / replicas->size(); }
  int own_blocks() const { return token_blocks() / comm.size(); }
  int feature_blocks() const { return blocks / comm.size(); }

  Part part(int64_t whole) const { return part_of(whole, comm.size(), comm.rank()); }
  // The tokens [start, start + length) of [0, T) that this rank holds between blocks.
  Part token_part() const { return sequence_parallel ? part(tokens) : Part{0, tokens}; }
};

// x [..., T, in] between-blocks layout; weight is this rank's shard over outputs ([out/t, in] or
// [in, out/t]), bias its shard [out/t] or an empty handle -> [..., T, out/t], all T tokens.
// parts: of the outputs, each of which is cut among the ranks (query, key and value side by side).
// Where several products share one x, call column_linears.
Tensor column_linear(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& weight,
                     const Tensor& bias, ops::WeightLayout layout,
                     std::optional<ops::Activation> activation = std::nullopt, int parts = 1);
// Of the outputs of a weight's shard, some of which neighbours on the axis may hold, too.
struct Held {
  Part own;          // those in this rank's term of x's gradient; no length: all
  int64_t cell = 0;  // of the result's cells (kernels/cpu/gemm_cells.h); 0: a block of those
};
// The same of several weights: x is gathered once, and its gradient is summed over the ranks once
// -> [..., T, out_i/t] of each weight. biases: one a weight, or none. held: the same, and read with
// blocks alone, where the ranks that hold an output share its terms of x's gradient out; without
// they have each the term of what they make of theirs.
std::vector<Tensor> column_linears(Context& cx, const TensorAxis& axis, const Tensor& x,
                                   std::span<const Tensor> weights, std::span<const Tensor> biases,
                                   ops::WeightLayout layout, std::span<const Held> held = {});
// What stands before column_linear's product: x between blocks -> what every rank's products read,
// [..., T, in].
Tensor column_input(Context& cx, const TensorAxis& axis, const Tensor& x);

// x [..., T, in/t]; weight is the shard over inputs ([out, in/t] or [in/t, out]); bias [out],
// whole, or an empty handle, added once after the sum -> between-blocks layout, [..., T or its
// part, out]. residual, in that layout, or an empty handle is added.
Tensor row_linear(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& weight,
                  const Tensor& bias, ops::WeightLayout layout, const Tensor& residual = Tensor());
// The second half of row_linear: each rank's term [..., T, H] -> their sum in the between-blocks
// layout.
Tensor row_output(Context& cx, const TensorAxis& axis, const Tensor& x);

// Between-blocks layout [..., T or its part, H] -> replicated, used alike by every rank (a task's
// head that is not itself tensor parallel), and back.
Tensor join_tokens(Context& cx, const TensorAxis& axis, const Tensor& x);
Tensor split_tokens(Context& cx, const TensorAxis& axis, const Tensor& x);
// What this rank has between blocks of numbers [B, T, ...], of each token; not differentiable.
Tensor own_numbers(Context& cx, const TensorAxis& axis, const Tensor& x);

// A parameter that every rank of the axis holds whole and applies to between-blocks activations
// (gamma and beta of a norm, a bias after a sum, positions' rows of split tokens). With
// sequence_parallel each rank sees only its tokens, so its gradient is summed over the axis in the
// backward pass; without, the gradient is already the same everywhere and this is the identity.
Tensor replicated(Context& cx, const TensorAxis& axis, const Tensor& parameter);

// ids int64 [B, T], all tokens and the same on every rank; table is this rank's rows
// part_of(vocabulary, t, rank) of the whole, [V/t, H] -> between-blocks layout [B, T or its part,
// H].
Tensor vocabulary_embedding(Context& cx, const TensorAxis& axis, const Tensor& ids,
                            const Tensor& table, int64_t vocabulary, int64_t padding_id = -1);

// Sum over rows of -log softmax(logits)[label]: logits [..., V/t], sharded over the vocabulary by
// part_of; labels int64 [...] with global ids, the same on every rank; ignore_index counts for
// nothing. A scalar, the same on every rank of the axis. Maximum, sum of exponentials and the
// label's logit are reduced, [rows] each; the vocabulary is never gathered. dtype as logits. The
// shard of `loss` is filled in here.
Tensor vocabulary_cross_entropy(Context& cx, Communicator& comm, const Tensor& logits,
                                const Tensor& labels, int64_t vocabulary,
                                const ops::TokenLoss& loss = {});
// The same of classes that are cut in another way: this rank's logits [..., width] are those of
// [first, first + width) of `whole`.
Tensor split_cross_entropy(Context& cx, Communicator& comm, const Tensor& logits,
                           const Tensor& labels, int64_t first, int64_t whole,
                           const ops::TokenLoss& loss = {});
// As vocabulary_cross_entropy of the logits x table^T + bias, which never stand in memory as a
// whole: x [..., H] as column_input gives it, table this rank's rows [V/t, H], bias its part [V/t]
// or an empty handle.
Tensor vocabulary_linear_cross_entropy(Context& cx, Communicator& comm, const Tensor& x,
                                       const Tensor& table, const Tensor& labels,
                                       int64_t vocabulary, const ops::TokenLoss& loss = {},
                                       const Tensor& bias = Tensor());

}  // namespace weft::parallel
