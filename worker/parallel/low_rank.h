// A linear map with a low-rank adapter beside it (worker/models/adapter.h), on the mesh:
//
//   y + scaling * B A x      y: what the map W itself gives, for the same x
//
// The tensor axis shares B out as it does the outputs of a column-parallel W, and A as the inputs
// of a row-parallel one; the other of the two is whole on every rank. What crosses the axis is A x,
// [T, rank], and the gradient of what is whole.
//   column   A x of the rank's own tokens between blocks, gathered for B's shard; backwards its
//            gradient's terms are summed to the ranks' tokens, and A's over the axis
//   row      A's shard gives terms of A x, summed to the ranks' tokens; B maps these
// In half precision each rank's term of the gradient of what is whole, and its sum over the axis,
// are of the half type, as those of other weights that ranks share; a shard's gradient is fp32.
//
// Legend as tensor_parallel.h; r rank. Thread safety and ownership: as collective_ops.h. Not of
// topology-invariant training.
#pragma once

#include "worker/parallel/tensor_parallel.h"

namespace weft::parallel {

struct LowRank {
  Tensor a, b;  // this rank's, [r, in], [out, r]
  double scaling = 1;
};

// x between blocks, [..., T or its part, in]; map.a whole, map.b [out/t, r]; y [..., T, out/t], as
// column_linear gives it -> the same shape.
Tensor add_to_column(Context& cx, const TensorAxis& axis, const Tensor& x, const LowRank& map,
                     const Tensor& y);
// x [..., T, in/t]; map.a [r, in/t], map.b whole; y between blocks, [..., T or its part, out], as
// row_linear gives it -> the same shape.
Tensor add_to_row(Context& cx, const TensorAxis& axis, const Tensor& x, const LowRank& map,
                  const Tensor& y);

}  // namespace weft::parallel
