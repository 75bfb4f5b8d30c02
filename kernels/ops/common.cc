#include "kernels/ops/common.h"

#include <algorithm>

#include "kernels/cpu/convert.h"

namespace weft::ops {

int positive_dim(int dim, const Shape& shape) {
  const int positive = dim < 0 ? dim + shape.dims() : dim;
  WEFT_CHECK(positive >= 0 && positive < shape.dims(), "dim {} of {}", dim, shape.to_string());
  return positive;
}

Shape broadcast_shape(const Shape& a, const Shape& b) {
  const int dims = std::max(a.dims(), b.dims());
  Shape shape;
  for (int dim = 0; dim < dims; ++dim) {
    const int in_a = dim - (dims - a.dims()), in_b = dim - (dims - b.dims());
    const int64_t extent_a = in_a < 0 ? 1 : a[in_a], extent_b = in_b < 0 ? 1 : b[in_b];
    WEFT_CHECK(extent_a == extent_b || extent_a == 1 || extent_b == 1, "{} against {}",
               a.to_string(), b.to_string());
    shape.push_back(extent_a == 1 ? extent_b : extent_a);
  }
  return shape;
}

Strides broadcast_strides(const Tensor& x, const Shape& shape) {
  Strides strides{};
  const int missing = shape.dims() - x.shape().dims();
  for (int dim = 0; dim < x.shape().dims(); ++dim) {
    const bool repeated = x.shape()[dim] == 1 && shape[dim + missing] != 1;
    strides[static_cast<size_t>(dim + missing)] =
        repeated ? 0 : x.strides()[static_cast<size_t>(dim)];
  }
  return strides;
}

Split split_at(const Shape& shape, int dim) {
  Split split;
  for (int i = 0; i < shape.dims(); ++i) {
    int64_t& part = i < dim ? split.outer : i == dim ? split.extent : split.inner;
    part *= shape[i];
  }
  return split;
}

Tensor reduce_to(Context& cx, const Tensor& gradient, const Shape& shape) {
  if (gradient.shape() == shape) return gradient;
  Tensor sum = as_contiguous(cx.pool, gradient);
  if (is_half(sum.dtype())) sum = cpu::converted(cx.pool, sum, DType::kF32);
  const int missing = gradient.shape().dims() - shape.dims();
  // Runs of neighbouring broadcast dims are summed at once.
  for (int dim = 0; dim < gradient.shape().dims();) {
    const auto repeated = [&](int d) {
      return d < gradient.shape().dims() &&
             (d < missing || (shape[d - missing] == 1 && gradient.shape()[d] != 1));
    };
    if (!repeated(dim)) {
      ++dim;
      continue;
    }
    int last = dim;
    Shape reduced = sum.shape();
    Split split = split_at(sum.shape(), dim);
    reduced[dim] = 1;
    while (repeated(last + 1)) {
      ++last;
      split.extent *= sum.shape()[last];
      reduced[last] = 1;
    }
    split.inner = split_at(sum.shape(), last).inner;
    Tensor out = Tensor::empty(cx.allocator, reduced, sum.dtype());
    sum_middle(cx, sum, split, 1, out);
    sum = out;
    dim = last + 1;
  }
  const Strides strides = row_major_strides(shape);
  return sum.view(shape, std::span(strides).first(static_cast<size_t>(shape.dims())), 0);
}

Tensor transposed_view(const Tensor& x) {
  const size_t dims = static_cast<size_t>(x.shape().dims());
  WEFT_CHECK(dims >= 2, "{} has no rows and columns", x.shape().to_string());
  Shape shape = x.shape();
  std::vector<int64_t> strides(x.strides().begin(), x.strides().end());
  std::swap(shape[-1], shape[-2]);
  std::swap(strides[dims - 1], strides[dims - 2]);
  return x.view(shape, strides, 0);
}

int64_t row_count(const Shape& shape) { return split_at(shape, shape.dims() - 1).outer; }

Tensor shaped(const Tensor& x, const Shape& shape) {
  const Strides strides = row_major_strides(shape);
  return x.view(shape, std::span(strides).first(static_cast<size_t>(shape.dims())), 0);
}

Tensor as_rows(Context& cx, const Tensor& x) {
  const Tensor whole = as_contiguous(cx.pool, x);
  const int64_t width = x.shape()[-1];
  const Shape shape{split_at(x.shape(), x.shape().dims() - 1).outer, width};
  return whole.view(shape, std::array<int64_t, 2>{width, 1}, 0);
}

}  // namespace weft::ops
