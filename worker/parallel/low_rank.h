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
// DoRA (Liu et al. 2024) rescales each output by magnitude / norm, the norm that of its row of
// W + scaling * B A and no part of the tape. The norm is taken of that matrix itself, not of the
// expansion |W|^2 + 2 s W . B A + s^2 |B A|^2, whose terms cancel and whose products with W are as
// many operations: 2 rank out in, beside the map's own 2 T out in. A piece of the matrix at a time
// is made, in fp32 or float64, so W is read once more and no second one is kept. Of a row-parallel
// W the squares are summed over the axis, [out].
//
// Topology-invariant (blocked.h) the same travels, but terms in fp32: products are cut into the
// blocks of the map beside them, the rank, which is small, into none. Of a norm's sum the inputs
// are, too; what the axis shares out is summed over it in the tree (blocked_magnitudes.h).
//
// Legend as tensor_parallel.h; r rank. Thread safety and ownership: as collective_ops.h.
#pragma once

#include "worker/parallel/tensor_parallel.h"

namespace weft::parallel {

struct LowRank {
  Tensor a, b;  // this rank's, [r, in], [out, r]
  double scaling = 1;
  // Of a column's outputs, read with blocks alone: how many parts stand side by side, and as
  // column_linears' held.
  int parts = 1;
  Held held = {};
};

// What the tensor axis shares out of a map: its outputs, or its inputs.
enum class Side { kColumn, kRow };

// column  x between blocks, [..., T or its part, in]; map.a whole, map.b [out/t, r]; y [..., T,
//         out/t], as column_linear gives it -> the same shape.
// row     x [..., T, in/t]; map.a [r, in/t], map.b whole; y between blocks, [..., T or its part,
//         out], as row_linear gives it -> the same shape.
Tensor add_low_rank(Context& cx, const TensorAxis& axis, Side side, const Tensor& x,
                    const LowRank& map, const Tensor& y);

struct Magnitude {
  Tensor values;  // of this rank's outputs, [out/t] or [out], at least of fp32
  Tensor weight;  // this rank's W
  ops::WeightLayout layout = ops::WeightLayout::kOutIn;
};

// The same with DoRA, y without a bias: y + scaling * B A x + (magnitude / norm - 1) * (base +
// scaling * B A x), which in half precision rounds no factor near 1. base: W x, where y is that of
// another x (dropout's base); an empty handle: y.
Tensor add_rescaled(Context& cx, const TensorAxis& axis, Side side, const Tensor& x,
                    const LowRank& map, const Magnitude& magnitude, const Tensor& y,
                    const Tensor& base);

}  // namespace weft::parallel
