// The products of tensor parallelism with their communication beside them. A product is cut where
// the ranks' tokens are, and what needs no other rank comes first, or last:
//   gathered_linear   forwards, other ranks' tokens arrive while the own ones are multiplied, by
//   all
//                     weights; backwards, each part of the input's gradient, all weights' terms of
//                     it, leaves once it is computed, the own one last, and arrives beside the
//                     weights' gradients
//   scattered_linear  forwards, each part of the result leaves once it is computed, the own one
//                     last; backwards, other ranks' gradients arrive while the own one is
//                     multiplied
// Payload as gather_along and scatter_sum_along. A rank adds to its own term those of the ranks
// before it, one after the other (modulo the size); of half types in fp32, rounded once.
//
// Thread safety and ownership: as collective_ops.h.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "worker/parallel/tensor_parallel.h"

namespace weft::parallel {

// Whether products are worth cutting there: every rank's part has axis.overlapped_tokens_min
// tokens. The same on every rank. fp16 on the CPU, whose ops run on fp32 copies, never.
bool overlaps(const TensorAxis& axis, const Tensor& x);

// x [..., part_of(T, t, rank), in] -> [..., T, out/t]; weight and bias as column_linear's.
Tensor gathered_linear(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& weight,
                       const Tensor& bias, ops::WeightLayout layout,
                       std::optional<ops::Activation> activation);
// Of several weights of one x, which arrives once and whose gradient leaves once: a result of each.
// biases: one a weight, or none.
std::vector<Tensor> gathered_linears(Context& cx, const TensorAxis& axis, const Tensor& x,
                                     std::span<const Tensor> weights,
                                     std::span<const Tensor> biases, ops::WeightLayout layout);

// x [..., T, in/t] -> the sum over the ranks, [..., part_of(T, t, rank), out].
Tensor scattered_linear(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& weight,
                        ops::WeightLayout layout);

}  // namespace weft::parallel
