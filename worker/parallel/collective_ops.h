// Collectives inside the forward pass, as differentiable ops. The two halves of a conjugate pair
// (each is the other's backward pass) stand together, here and in collective_ops.cc (Shoeybi et al.
// 2019; Korthikanti et al. 2022).
//
// "The axis" is the ranks of `comm`. A value is *replicated* where all ranks of the axis hold the
// same, *partial* where the true value is the sum over ranks, *split* where rank r holds
// part_of(whole, size, r) along one dim. A gradient of a replicated value is replicated itself for
// sum_over_axis, join_along (each rank has the whole of it) and partial for copy_to_axis,
// gather_along (each rank has its term). Parts may differ by one and may be empty; size one costs
// no communication.
//
// Thread safety: the rank's compute thread; every rank of the axis calls the same ops in one order,
// and the backward passes run in one order too. Ownership: comm outlives the tape. dim may be
// negative. Shapes that do not fit are our own mistake: WEFT_CHECK.
#pragma once

#include "kernels/autograd/op.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/mesh.h"

namespace weft::parallel {

// replicated -> replicated, to be used differently by each rank. Identity; backward: sum of
// gradients.
Tensor copy_to_axis(Context& cx, Communicator& comm, const Tensor& x);
// partial -> replicated. Sum over ranks; backward: identity.
Tensor sum_over_axis(Context& cx, Communicator& comm, const Tensor& x);

// split -> replicated, used differently by each rank. All-gather; backward: reduce-scatter.
// x's extent along dim is part_of(whole, size, rank).length; the result's is `whole`.
Tensor gather_along(Context& cx, Communicator& comm, const Tensor& x, int dim, int64_t whole);
// partial -> split. Reduce-scatter; backward: all-gather.
Tensor scatter_sum_along(Context& cx, Communicator& comm, const Tensor& x, int dim);

// replicated -> split. This rank's part (a copy); backward: all-gather.
Tensor split_along(Context& cx, Communicator& comm, const Tensor& x, int dim);
// split -> replicated, used alike by each rank. All-gather; backward: this rank's part.
Tensor join_along(Context& cx, Communicator& comm, const Tensor& x, int dim, int64_t whole);

}  // namespace weft::parallel
