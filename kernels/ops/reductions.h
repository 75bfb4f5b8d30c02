// Reductions beyond the sums and means over one dim. A reduced dim is dropped, or kept with extent
// 1 if `keep`. Sums honour Context::block_count.
#pragma once

#include <span>

#include "kernels/autograd/op.h"

namespace weft::ops {

// ---- over several dims (reduce_dims.cc); no dims: nothing is reduced
Tensor sum(Context& cx, const Tensor& x, std::span<const int> dims, bool keep = false);
Tensor mean(Context& cx, const Tensor& x, std::span<const int> dims, bool keep = false);
// sum((x - mean)^2) / (n - correction) in two passes; correction 1: the unbiased estimate; NaN of
// no more equal elements than the correction.
Tensor variance(Context& cx, const Tensor& x, std::span<const int> dims, double correction = 1,
                bool keep = false);

// ---- extremes (extremes.cc) along one dim of at least one element: the values and the int64
// places of their first occurrences; the gradient goes there. A NaN is the extreme.
struct Extremes {
  Tensor values, indices;
};
Extremes max(Context& cx, const Tensor& x, int dim, bool keep = false);
Extremes min(Context& cx, const Tensor& x, int dim, bool keep = false);
Tensor argmax(Context& cx, const Tensor& x, int dim, bool keep = false);  // no gradient
Tensor argmin(Context& cx, const Tensor& x, int dim, bool keep = false);

// ---- cumulative sum along a dim, from its first element or, reversed, from its last
// (cumulative.cc)
Tensor cumulative_sum(Context& cx, const Tensor& x, int dim, bool reversed = false);

}  // namespace weft::ops
