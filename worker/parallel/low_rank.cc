#include "worker/parallel/low_rank.h"

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/ops/elementwise.h"
#include "worker/parallel/blocked.h"
#include "worker/parallel/blocked_magnitudes.h"

namespace weft::parallel {
namespace {

using ops::WeightLayout;

// Of W + scaling * B A at once: what stays in a core's cache; on a GPU enough for all of it.
constexpr int64_t kPieceElements = 1 << 18, kGpuPieceElements = 1 << 23;

// In blocks: of what every rank has whole, applied to its tokens between blocks.
constexpr BlockedLinear kOwnTokens{.layout = WeightLayout::kOutIn, .own_tokens = true};

// scaling * A x as B reads it. x is the smallest to scale after A.
Tensor inner_of(Context& cx, const TensorAxis& axis, Side side, const Tensor& x,
                const LowRank& map) {
  if (side == Side::kRow) {
    const Tensor inner = row_linear(cx, axis, x, map.a, Tensor(), WeightLayout::kOutIn);
    return ops::scale(cx, inner, map.scaling);
  }
  const Tensor inner = axis.blocks > 0 ? blocked_linear(cx, axis, x, map.a, Tensor(), kOwnTokens)
                                       : ops::linear(cx, x, replicated(cx, axis, map.a), Tensor(),
                                                     WeightLayout::kOutIn);
  return column_input(cx, axis, ops::scale(cx, inner, map.scaling));
}

// Of what this rank's outputs lie between: a parameter of theirs.
Tensor of_outputs(Context& cx, const TensorAxis& axis, Side side, const Tensor& parameter) {
  return side == Side::kRow ? replicated(cx, axis, parameter) : parameter;
}

// y + B inner, where the product is made.
Tensor added(Context& cx, const Tensor& inner, const Tensor& b, const Tensor& y) {
  return ops::linear(cx, inner, b, Tensor(), WeightLayout::kOutIn, std::nullopt, y);
}
// The same in blocks; y may be an empty handle.
Tensor added_in_blocks(Context& cx, const TensorAxis& axis, Side side, const Tensor& inner,
                       const LowRank& map, const Tensor& y) {
  BlockedLinear blocked = kOwnTokens;
  if (side == Side::kColumn) {
    blocked = {WeightLayout::kOutIn, Shared::kOutputs, std::nullopt, map.parts, false, map.held};
  }
  return blocked_linear(cx, axis, inner, map.b, Tensor(), blocked, y);
}

// Of each of this rank's outputs the sum of squares of W + scaling * B A, of this rank's inputs.
Tensor output_squares(Context& cx, const LowRank& map, const Magnitude& magnitude) {
  const Tensor& weight = magnitude.weight;
  const DType dtype = magnitude.values.dtype();
  const Tensor a = ops::cast(cx, map.a, dtype);
  const Tensor b = ops::scale(cx, ops::cast(cx, map.b, dtype), map.scaling);
  const bool out_in = magnitude.layout == WeightLayout::kOutIn;
  if (weight.elements() == 0) return Tensor::zeros(cx.allocator, {b.dim(0)}, dtype);
  const Tensor left = out_in ? b : ops::contiguous(cx, ops::permute(cx, a, std::array{1, 0}));
  const int64_t most = cx.stream() == nullptr ? kPieceElements : kGpuPieceElements;
  const int64_t rows = weight.dim(0), at_once = std::max<int64_t>(1, most / weight.dim(1));
  std::vector<Tensor> of_rows;
  Tensor sum;
  for (int64_t first = 0; first < rows; first += at_once) {
    const int64_t count = std::min(at_once, rows - first);
    const Tensor piece =
        ops::linear(cx, ops::slice(cx, left, 0, first, count), out_in ? a : b, Tensor(),
                    out_in ? WeightLayout::kInOut : WeightLayout::kOutIn, std::nullopt,
                    ops::cast(cx, ops::slice(cx, weight, 0, first, count), dtype));
    const Tensor squares = ops::sum(cx, ops::square(cx, piece), out_in ? 1 : 0);
    if (out_in) {
      of_rows.push_back(squares);
    } else {
      sum = sum ? ops::add(cx, sum, squares) : squares;
    }
  }
  return out_in ? ops::concat(cx, of_rows, 0) : sum;
}

// magnitude / norm - 1 of each of this rank's outputs.
Tensor excess_of(Context& cx, const TensorAxis& axis, Side side, const LowRank& map,
                 const Magnitude& magnitude) {
  Tensor norm;
  {
    const NoGrad constant(cx);
    const Tensor squares = output_squares(cx, map, magnitude);
    norm = ops::sqrt(cx, side == Side::kRow ? sum_over_axis(cx, axis.comm, squares) : squares);
  }
  const Tensor values = of_outputs(cx, axis, side, magnitude.values);
  const Tensor one = Tensor::full(cx.allocator, {1}, 1, values.dtype());
  return ops::subtract(cx, ops::divide(cx, values, norm), one);
}

// B A x is made once, so that what crosses the axis does so once, and B has one gradient.
Tensor add_rescaled_in_blocks(Context& cx, const TensorAxis& axis, Side side, const Tensor& x,
                              const LowRank& map, const Magnitude& magnitude, const Tensor& y,
                              const Tensor& base) {
  const Tensor norms = blocked_norms(cx, axis, side, map, magnitude);
  const Tensor inner = inner_of(cx, axis, side, x, map);
  if (!base) {
    const Tensor sum = added_in_blocks(cx, axis, side, inner, map, y);
    return blocked_rescaled(cx, axis, side, sum, sum, magnitude.values, norms);
  }
  const Tensor both = added_in_blocks(cx, axis, side, inner, map, Tensor());
  return blocked_rescaled(cx, axis, side, ops::add(cx, y, both), ops::add(cx, base, both),
                          magnitude.values, norms);
}

}  // namespace

Tensor add_low_rank(Context& cx, const TensorAxis& axis, Side side, const Tensor& x,
                    const LowRank& map, const Tensor& y) {
  const Tensor inner = inner_of(cx, axis, side, x, map);
  if (axis.blocks > 0) return added_in_blocks(cx, axis, side, inner, map, y);
  return added(cx, inner, of_outputs(cx, axis, side, map.b), y);
}

Tensor add_rescaled(Context& cx, const TensorAxis& axis, Side side, const Tensor& x,
                    const LowRank& map, const Magnitude& magnitude, const Tensor& y,
                    const Tensor& base) {
  if (axis.blocks > 0) {
    return add_rescaled_in_blocks(cx, axis, side, x, map, magnitude, y, base);
  }
  const Tensor excess = excess_of(cx, axis, side, map, magnitude);
  const Tensor inner = inner_of(cx, axis, side, x, map);
  const Tensor b = of_outputs(cx, axis, side, map.b);
  const Tensor sum = added(cx, inner, b, y);
  const Tensor rescaled = base ? added(cx, inner, b, base) : sum;
  return ops::add(cx, sum, ops::multiply(cx, rescaled, ops::cast(cx, excess, y.dtype())));
}

}  // namespace weft::parallel
