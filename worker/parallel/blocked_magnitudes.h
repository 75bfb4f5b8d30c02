// DoRA's part of low_rank.h, topology-invariant (blocked.h): norms and the gradient of magnitudes.
//
// Thread safety and ownership: as collective_ops.h. F32 and BF16; magnitudes and norms are F32.
#pragma once

#include "worker/parallel/low_rank.h"

namespace weft::parallel {

// Of each of this rank's outputs the norm of its row of W + scaling * B A, whose sum over inputs is
// cut where the tensor axis would cut them: [out/t], or [out] of a row-parallel W, alike on every
// rank. Nothing is recorded.
Tensor blocked_norms(Context& cx, const TensorAxis& axis, Side side, const LowRank& map,
                     const Magnitude& magnitude);

// y + (values / norms - 1) * base, of rows [..., out] that are the replica's tokens (kColumn) or
// the rank's own; values, norms [out]. Of the values' gradient each block of tokens is divided by
// the norms before blocks are merged, wherever ranks part them.
Tensor blocked_rescaled(Context& cx, const TensorAxis& axis, Side side, const Tensor& y,
                        const Tensor& base, const Tensor& values, const Tensor& norms);

}  // namespace weft::parallel
