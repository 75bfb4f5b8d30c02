// What a transformer is made of, computed so that no bit depends on the mesh: topology-invariant
// training. The plain composition is that of tensor_parallel.h.
//
// A batch's tokens, row by row, are cut into `blocks` blocks of consecutive ones, and so are the
// features that the tensor axis shares out and the vocabulary. A rank of the replica axis has as
// many consecutive blocks of tokens as its share is, a rank of the tensor axis of features; between
// blocks of the model the tensor axis shares out the replica's blocks of tokens. Every sum over
// tokens, features or the vocabulary is taken block by block, each block by one single-threaded
// library call whose sizes and strides follow from the blocks (kernels/cpu/gemm_cells.h), and
// merged in the binary tree over the blocks, of which a rank has a node (tree_sum.h). Where a sum
// crosses ranks, it is fp32 and rounded once, after it.
//
// Gradients of parameters are of this rank's tokens; whoever runs the backward pass completes them
// (Tape::complete_leaves): those of what the tensor axis shares out, and of a task's head, over the
// replicas, those of the rest over the world.
//
// Legend: N tokens of a replica, n = N / t of them on a rank between blocks, H hidden.
//
// Thread safety and ownership: as collective_ops.h. F32 and BF16.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "worker/parallel/rank.h"
#include "worker/parallel/tensor_parallel.h"

namespace weft::parallel {

// How the tensor axis shares a weight out: not at all, by what it maps to, by what it maps from.
enum class Shared { kNothing, kOutputs, kInputs };

struct BlockedLinear {
  ops::WeightLayout layout = ops::WeightLayout::kInOut;
  Shared shared = Shared::kNothing;
  std::optional<ops::Activation> activation;  // not of kInputs
  // The shared features are so many parts side by side, each of which is cut (query, key, value).
  int parts = 1;
  bool own_tokens = false;  // of kNothing: x is this rank's tokens between blocks
  Held held = {};           // of kOutputs, as column_linears'
};

// kOutputs: x [..., n, in] -> [1, N, out / t]. kInputs: x [..., N, in / t] -> [1, n, out].
// kNothing: x [..., in], rows that stand for the replica's tokens in their order, or n of this
// rank's -> [..., out]. bias: of what the weight's shard maps to, residual: as the result, which
// they are added to, or empty handles; no residual behind an activation.
Tensor blocked_linear(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& weight,
                      const Tensor& bias, const BlockedLinear& map,
                      const Tensor& residual = Tensor());

// kOutputs of several weights of one x, [..., n, in] -> [1, N, out_i / t] of each: one gather, and
// backwards one sum over the axis for x, each block of which all weights' features are in. biases:
// one a weight, or none; held: as column_linears.
std::vector<Tensor> blocked_linears(Context& cx, const TensorAxis& axis, const Tensor& x,
                                    std::span<const Tensor> weights, std::span<const Tensor> biases,
                                    ops::WeightLayout layout, std::span<const Held> held = {});

// x [..., this rank's of `heads` heads, D], rows that stand for the replica's tokens, times gamma
// [D], which every rank has whole: -> the same shape. A rank has all heads of which a part of its
// own of [0, heads), cut evenly, is (blocked_head_parts()): t need not divide them.
Tensor blocked_scale(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& gamma,
                     int64_t heads);

// x [rows, D], rows that stand for the replica's tokens and which every rank of the tensor axis
// has, times gamma [D] plus beta [D]. F32.
Tensor blocked_affine(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& gamma,
                      const Tensor& beta);

// The tensor axis of a rank with blocks; tokens: N.
TensorAxis blocked_axis(Rank& rank, int64_t tokens);

// ids [B, T], the replica's N -> [1, n, H]. The row of padding_id gets no gradient.
Tensor blocked_embedding(Context& cx, const TensorAxis& axis, const Tensor& ids,
                         const Tensor& table, int64_t vocabulary, int64_t padding_id = -1);

// A learned bias by distance (attention::Parameters), one of each of the replica's blocks of
// tokens, which are whole rows: table [buckets, N], bucket: int64 [2 R + 1], of each distance ->
// [blocks, N, 2 R + 1], alike. So the table's gradient is a sum over blocks.
Tensor blocked_distance_bias(Context& cx, const TensorAxis& axis, const Tensor& table,
                             const Tensor& bucket);

// The loss of a language model, x [..., n, H] and the replica's labels [...] -> the sum over the
// whole batch, on every rank. The logits do not stand in memory as a whole where they are more than
// kept_max: they are computed a second time for their gradient. `best`, where it is given, gets the
// likeliest id of each of the N tokens, the smallest of several. kept_max: of a rank's logits.
// bias: of the table's rows, added to their logits, or an empty handle.
inline constexpr int64_t kKeptLogits = int64_t{1} << 24;
Tensor blocked_linear_cross_entropy(Context& cx, const TensorAxis& axis, const Tensor& x,
                                    const Tensor& table, const Tensor& labels, int64_t vocabulary,
                                    const ops::TokenLoss& loss, Tensor* best = nullptr,
                                    int64_t kept_max = kKeptLogits, const Tensor& bias = Tensor());
// The same of logits [rows, classes] that every rank of the tensor axis has, rows standing for the
// replica's tokens in their order.
Tensor blocked_cross_entropy(Context& cx, const TensorAxis& axis, const Tensor& logits,
                             const Tensor& labels, const ops::TokenLoss& loss);

}  // namespace weft::parallel
