// Sums over the ranks of an axis in one fixed binary tree: the terms travel (all-to-all,
// all-gather), and whoever needs a sum adds them up itself, halves of the ranks at a time. So a
// rank that adds what two others would have added gets their bits, as long as the number of ranks
// is a power of two.
//
// Thread safety and ownership: as collective_ops.h. Nothing is recorded. x is contiguous, F32 or
// F64 where it is summed. Payload a rank sends of x of n elements over p ranks: (p - 1) / p n
// elements for each of the two calls that a function makes.
#pragma once

#include <functional>
#include <span>

#include "kernels/autograd/context.h"
#include "worker/parallel/communicator.h"

namespace weft::parallel {

// Rows (of the first dim, which the ranks divide) to the rank that holds them: x [n, ...] of each
// -> the sum's own rows [n / p, ...]. present: which ranks have a term, one at least; empty: all.
Tensor tree_scatter(Context& cx, Communicator& comm, const Tensor& x,
                    std::span<const char> present = {});
// -> the sum, on every rank. x may be written to.
Tensor tree_sum(Context& cx, Communicator& comm, const Tensor& x);
double tree_sum(Context& cx, Communicator& comm, double x);

// x [n, ...] of each -> [p n, ...], in rank order.
Tensor gathered(Context& cx, Communicator& comm, const Tensor& x);

// Merges the nodes 0 to count - 1 of a tree's level pairwise into node 0: merge(into, from).
void merge_tree(int64_t count, const std::function<void(int64_t into, int64_t from)>& merge);
// The same where some nodes are absent, into the first that is not: -> which that is; -1: none.
int64_t merge_tree(std::span<const char> present,
                   const std::function<void(int64_t into, int64_t from)>& merge);

}  // namespace weft::parallel
