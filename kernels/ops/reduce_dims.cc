// Reductions over several dims, composed of those over one: neighbouring dims are joined, so that
// each run of them is one sum.
#include <algorithm>

#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/reductions.h"

namespace weft::ops {
namespace {

// Which dims are reduced; each may be named once.
std::array<bool, Shape::kDimsMax> marked(const Shape& shape, std::span<const int> dims) {
  std::array<bool, Shape::kDimsMax> reduced{};
  for (const int dim : dims) {
    bool& mark = reduced[static_cast<size_t>(positive_dim(dim, shape))];
    WEFT_CHECK(!mark, "dim {} of {} twice", dim, shape.to_string());
    mark = true;
  }
  return reduced;
}

int64_t count_of(const Shape& shape, std::span<const int> dims) {
  int64_t count = 1;
  for (const int dim : dims) count *= shape[dim];
  return count;
}

Shape reduced_shape(const Shape& shape, std::span<const int> dims, bool keep) {
  const auto reduced = marked(shape, dims);
  Shape result;
  for (int dim = 0; dim < shape.dims(); ++dim) {
    const bool gone = reduced[static_cast<size_t>(dim)];
    if (!gone) result.push_back(shape[dim]);
    if (gone && keep) result.push_back(1);
  }
  return result;
}

}  // namespace

Tensor sum(Context& cx, const Tensor& x, std::span<const int> dims, bool keep) {
  const auto reduced = marked(x.shape(), dims);
  Tensor total = x;
  for (int last = x.shape().dims() - 1; last >= 0; --last) {
    if (!reduced[static_cast<size_t>(last)]) continue;
    int first = last;
    while (first > 0 && reduced[static_cast<size_t>(first - 1)]) --first;
    // [.., first to last as one, ..], what lies behind it already reduced to extent 1.
    Shape joined;
    int64_t extent = 1;
    for (int dim = 0; dim < total.shape().dims(); ++dim) {
      if (dim < first || dim > last) joined.push_back(total.dim(dim));
      if (dim >= first && dim <= last) extent *= total.dim(dim);
      if (dim == last) joined.push_back(extent);
    }
    Shape kept = total.shape();
    for (int dim = first; dim <= last; ++dim) kept[dim] = 1;
    total = reshape(cx, sum(cx, reshape(cx, total, joined), first, true), kept);
    last = first;
  }
  return reshape(cx, total, reduced_shape(x.shape(), dims, keep));
}

Tensor mean(Context& cx, const Tensor& x, std::span<const int> dims, bool keep) {
  const double count = static_cast<double>(count_of(x.shape(), dims));
  return scale(cx, sum(cx, x, dims, keep), 1 / count);
}

Tensor variance(Context& cx, const Tensor& x, std::span<const int> dims, double correction,
                bool keep) {
  const double count = static_cast<double>(count_of(x.shape(), dims));
  const Tensor centered = subtract(cx, x, mean(cx, x, dims, true));
  return scale(cx, sum(cx, square(cx, centered), dims, keep),
               1 / std::max(count - correction, 0.0));
}

}  // namespace weft::ops
