// Sums of what ranks have of a tensor [B, N, T, D] head by head, where neighbours have the same
// heads.
//
// A head's elements are cut among the ranks that have it, each of which adds the terms of its part
// up and sends the sum to the others: of a head of n elements on p ranks a rank sends
// 2 (p - 1) / p n elements.
//
// Thread safety and ownership: as collective_ops.h. Nothing is recorded. F32 or F64.
#pragma once

#include <span>

#include "kernels/autograd/context.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/mesh.h"

namespace weft::parallel {

// The ranks that have a head, of which rank r has heads[r], starts ascending: neighbours.
Part ranks_with(std::span<const Part> heads, int64_t head);
// Whether other ranks have a head of rank `rank`'s, too.
bool shares_heads(std::span<const Part> heads, int rank);

// x [B, heads[rank].length, T, D] of each rank -> the same shape, of each head the sum of all
// ranks' terms, in the tree over the ranks (tree_sum.h), in which those without it are absent.
// Where no rank shares a head, x.
Tensor sum_shared_heads(Context& cx, Communicator& comm, const Tensor& x,
                        std::span<const Part> heads);

}  // namespace weft::parallel
