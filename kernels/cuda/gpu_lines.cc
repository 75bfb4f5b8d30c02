// What works along a dim: extremes, running sums, order, elements by number, segments.
#include <algorithm>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/typed.h"
#include "kernels/tensor/dispatch.h"

namespace weft::cuda {
namespace {

// Strides of x walked as `shape`, all along `dim` at once.
Strides strides_without(const Tensor& x, int dim) {
  Strides strides{};
  std::ranges::copy(x.strides(), strides.begin());
  strides[static_cast<size_t>(dim)] = 0;
  return strides;
}

// Strides of an index walked as a tensor of `dims` dims: its own, or those of slices along `dim`.
Strides strides_of_index(const Tensor& index, int dim, int dims) {
  Strides strides{};
  if (index.shape().dims() == dims) {
    std::ranges::copy(index.strides(), strides.begin());
  } else {
    WEFT_CHECK(index.shape().dims() == 1, "an index {}", index.shape().to_string());
    strides[static_cast<size_t>(dim)] = index.strides()[0];
  }
  return strides;
}

// Over the index, x (along all dims but `dim`) and `other`, whose shape is walked.
struct Numbered {
  Walk<3> walk;
  NumberedDim dim;
};
Numbered numbered(const Tensor& x, int dim, const Tensor& index, const Tensor& other,
                  bool x_is_last, const Outside& outside) {
  const int dims = x.shape().dims();
  const size_t n = static_cast<size_t>(dims);
  const Strides of_index = strides_of_index(index, dim, dims), of_x = strides_without(x, dim);
  const std::span<const int64_t> in_index = std::span(of_index).first(n);
  const std::span<const int64_t> in_x = std::span(of_x).first(n);
  return {x_is_last ? walk_of<3>(other.shape(), {in_index, other.strides(), in_x})
                    : walk_of<3>(other.shape(), {in_index, in_x, other.strides()}),
          {x.dim(dim), x.strides()[static_cast<size_t>(dim)], outside}};
}

int64_t inner_of(const Tensor& x) { return ops::split_at(x.shape(), 0).inner; }

Segments segments_of(const Tensor& start, const Tensor& order) {
  return {start.data<int64_t>(), order.data<int64_t>(), start.elements() - 1, order.elements()};
}

}  // namespace

void Gpu::log_softmax(const Tensor& x, const Tensor& y) {
  activate_device();
  const Tensor from = contiguous(x);
  for_floating(y, "log_softmax", [&]<typename T>() {
    cuda::log_softmax(from.data<T>(), y.data<T>(), ops::row_count(x.shape()), x.dim(-1), stream_);
  });
}

void Gpu::log_softmax_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) {
  activate_device();
  const Tensor value = contiguous(y), gradient = contiguous(dy);
  for_floating(dx, "log_softmax", [&]<typename T>() {
    cuda::log_softmax_backward(value.data<T>(), gradient.data<T>(), dx.data<T>(),
                               ops::row_count(y.shape()), y.dim(-1), stream_);
  });
}

void Gpu::extreme_along(bool larger, const Tensor& x, const ops::Split& split, const Tensor& values,
                        const Tensor& places) {
  activate_device();
  const Tensor from = contiguous(x);
  for_floating(x, "an extreme along a dim", [&]<typename T>() {
    cuda::extreme_along(larger, from.data<T>(), split.outer, split.extent, split.inner,
                        values.data<T>(), places.data<int64_t>(), stream_);
  });
}

void Gpu::cumulative_sum(const Tensor& x, const ops::Split& split, bool reversed,
                         const Tensor& out) {
  activate_device();
  const Tensor from = contiguous(x);
  for_floating(x, "cumulative_sum", [&]<typename T>() {
    cuda::cumulative_sum(from.data<T>(), out.data<T>(), split.outer, split.extent, split.inner,
                         reversed, stream_);
  });
}

// A copy that walks over the target from its end.
void Gpu::flip(const Tensor& x, int dim, const Tensor& out) {
  activate_device();
  if (x.elements() == 0) return;
  Strides strides{};
  std::ranges::copy(out.strides(), strides.begin());
  int64_t& stride = strides[static_cast<size_t>(dim)];
  const int64_t last = (x.dim(dim) - 1) * stride;
  stride = -stride;
  const Walk<2> walk = walk_of<2>(
      x.shape(), {x.strides(),
                  std::span<const int64_t>(strides).first(static_cast<size_t>(x.shape().dims()))});
  dispatch_all(x.dtype(),
               [&]<typename T>() { cuda::copy(walk, x.data<T>(), out.data<T>() + last, stream_); });
}

void Gpu::sort(const Tensor& x, bool descending, const Tensor& values, const Tensor& places) {
  activate_device();
  const Tensor from = contiguous(x);
  const int64_t width = x.dim(-1);
  const bool all = values.dim(-1) == width;
  const auto room = [&](DType dtype) {
    return width > kSortTile ? scratch(x.shape(), dtype) : Tensor();
  };
  const Tensor sorted = all ? values : scratch(x.shape(), x.dtype());
  const Tensor order = all ? places : scratch(x.shape(), DType::kI64);
  const Tensor other = room(x.dtype()), other_order = room(DType::kI64);
  for_floating(x, "sort", [&]<typename T>() {
    sort_rows(from.data<T>(), ops::row_count(x.shape()), width, descending, sorted.data<T>(),
              order.data<int64_t>(), other ? other.data<T>() : nullptr,
              other_order ? other_order.data<int64_t>() : nullptr, stream_);
  });
  if (all) return;
  copy(sorted.view(values.shape(), sorted.strides(), 0), values);
  copy(order.view(places.shape(), order.strides(), 0), places);
}

void Gpu::take(const Tensor& x, int dim, const Tensor& index, ops::Numbers numbers,
               const Tensor& out) {
  activate_device();
  const Numbered by = numbered(x, dim, index, out, /*x_is_last=*/false, outside(numbers));
  for_floating(x, "elements by number", [&]<typename T>() {
    take_along(by.walk, by.dim, index.data<int64_t>(), x.data<T>(), out.data<T>(), stream_);
  });
}

void Gpu::put(int dim, const Tensor& index, const Tensor& source, const Tensor& out) {
  activate_device();
  const Numbered by = numbered(out, dim, index, source, /*x_is_last=*/true, Outside());
  for_floating(out, "elements by number", [&]<typename T>() {
    put_along(by.walk, by.dim, index.data<int64_t>(), source.data<T>(), out.data<T>(), stream_);
  });
}

// What is added to one place is brought together by a sort, so that no two threads meet.
void Gpu::add_at(int dim, const Tensor& index, ops::Numbers numbers, const Tensor& source,
                 const Tensor& out) {
  activate_device();
  if (source.elements() == 0) return;
  const Tensor from = contiguous(source);
  Tensor targets = index;
  ops::Split split = ops::split_at(out.shape(), dim);
  if (index.shape().dims() != 1) {  // elements, not slices
    targets = scratch(index.shape(), DType::kI64);
    const Numbered by = numbered(out, dim, index, targets, /*x_is_last=*/false, outside(numbers));
    targets_along(by.walk, by.dim, index.data<int64_t>(), targets.data<int64_t>(), stream_);
    split = {1, out.elements(), 1};
    numbers = ops::Numbers::kNone;  // told of already
  }
  const Members members = members_of(targets, 0, split.extent, numbers);
  for_floating(out, "sums by number", [&]<typename T>() {
    cuda::segment_sum(segments_of(members.start, members.order), from.data<T>(), split.outer,
                      split.inner, /*adds=*/true, out.data<T>(), stream_);
  });
}

void Gpu::one_hot(const Tensor& ids, ops::Numbers numbers, const Tensor& out) {
  activate_device();
  const Tensor number = contiguous(ids);
  dispatch_all(out.dtype(), [&]<typename T>() {
    cuda::one_hot(number.data<int64_t>(), ids.elements(), out.dim(-1), static_cast<T>(1.0F),
                  static_cast<T>(0.0F), out.data<T>(), outside(numbers), stream_);
  });
}

void Gpu::triangular_mask(int64_t diagonal, const Tensor& out) {
  activate_device();
  cuda::triangular_mask(out.dim(0), out.dim(1), diagonal, out.data<uint8_t>(), stream_);
}

Gpu::Members Gpu::members_of(const Tensor& segment, int64_t first, int64_t count,
                             ops::Numbers numbers) {
  const Tensor ids = contiguous(segment);
  const int64_t n = ids.elements();
  const Tensor sorted = scratch(Shape{n}, DType::kI64), room = scratch(Shape{2 * n}, DType::kI64);
  Members members{scratch(Shape{count + 1}, DType::kI64), scratch(Shape{n}, DType::kI64)};
  sort_rows(ids.data<int64_t>(), 1, n, false, sorted.data<int64_t>(), members.order.data<int64_t>(),
            room.data<int64_t>(), room.data<int64_t>() + n, stream_);
  segment_starts(sorted.data<int64_t>(), n, first, count, members.start.data<int64_t>(),
                 outside(numbers), stream_);
  return members;
}

void Gpu::segment_sum(const Tensor& x, const Tensor& segment, const Tensor& out) {
  activate_device();
  const Tensor from = contiguous(x);
  const Members members = members_of(segment, 0, out.dim(0), ops::Numbers::kSegment);
  for_floating(x, "segment_sum", [&]<typename T>() {
    cuda::segment_sum(segments_of(members.start, members.order), from.data<T>(), 1, inner_of(x),
                      /*adds=*/false, out.data<T>(), stream_);
  });
}

void Gpu::segment_max(const Tensor& x, const Tensor& segment, const Tensor& out,
                      const Tensor& place) {
  activate_device();
  const Tensor from = contiguous(x);
  const Members members = members_of(segment, 0, out.dim(0), ops::Numbers::kSegment);
  for_floating(x, "segment_max", [&]<typename T>() {
    cuda::segment_max(segments_of(members.start, members.order), from.data<T>(), inner_of(x),
                      out.data<T>(), place.data<int64_t>(), stream_);
  });
}

void Gpu::segment_max_backward(const Tensor& dy, const Tensor& place, const Tensor& dx) {
  activate_device();
  const Tensor gradient = contiguous(dy), places = contiguous(place);
  fill(dx, 0);
  for_floating(dx, "segment_max", [&]<typename T>() {
    cuda::segment_max_backward(gradient.data<T>(), places.data<int64_t>(), dy.elements(),
                               inner_of(dy), dx.data<T>(), stream_);
  });
}

void Gpu::segment_softmax(const Tensor& x, const Tensor& segment, int64_t count,
                          const Tensor& out) {
  activate_device();
  const Tensor from = contiguous(x);
  fill(out, 0);
  const Members members = members_of(segment, 0, count, ops::Numbers::kSegment);
  for_floating(x, "segment_softmax", [&]<typename T>() {
    cuda::segment_softmax(segments_of(members.start, members.order), from.data<T>(), inner_of(x),
                          out.data<T>(), stream_);
  });
}

void Gpu::segments_of_offsets(const Tensor& offsets, const Tensor& out) {
  activate_device();
  const Tensor from = contiguous(offsets);
  cuda::segments_of_offsets(from.data<int64_t>(), from.elements() - 1, out.elements(),
                            out.data<int64_t>(), stream_);
}

}  // namespace weft::cuda
