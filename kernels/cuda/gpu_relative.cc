// Scores by distance and segment: products for some pairs of a row and a head at a time, in
// scratch, and kernels that shift them into their places.
#include <algorithm>

#include "kernels/attention/relative.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/typed.h"

namespace weft::cuda {
namespace {

// Distances and features of products are filled up to so many, so that all rows begin at 16 bytes,
// for which the library has its fastest algorithms; and all memory begins at so many bytes, from
// which on it looks at no alignment. A pair's matrix, whole rows behind that, then lies as any
// other pair's does, and one product a pair gives the bits of that pair wherever it stands.
constexpr int64_t kFilledTo = 8;
constexpr uintptr_t kAlignment = 256;

int64_t filled(int64_t count) { return (count + kFilledTo - 1) / kFilledTo * kFilledTo; }

Tensor part_of(const Tensor& x, int64_t first, int64_t count) {  // of the outermost dim
  Shape shape = x.shape();
  shape[0] = count;
  return x.view(shape, x.strides(), first * x.strides()[0]);
}

}  // namespace

// What both passes have: operands of products by pair, and what kernels take.
class Gpu::Relative {
 public:
  Relative(Gpu& gpu, const Tensor& q, int64_t keys, const attention::RelativeTerms& terms,
           double scale, Repeats repeats)
      : gpu_(gpu),
        alone_(repeats == Repeats::kTopology),
        pairs_(q.dim(0) * q.dim(1)),
        groups_(terms.distances.dim(0)),
        q_(gpu.contiguous(q)),
        segment_(gpu.contiguous(terms.segment)),
        segments_(gpu.contiguous(terms.segments)),
        query_segment_(gpu.contiguous(terms.query_segment)),
        key_segment_(gpu.contiguous(terms.key_segment)),
        places_(gpu.contiguous(terms.places)) {
    const int64_t heads = q.dim(1), queries = q.dim(2), features = q.dim(3);
    const int64_t distances = terms.distances.dim(2);
    kernel = {.first = 0,
              .count = 0,
              .heads = heads,
              .queries = queries,
              .keys = keys,
              .features = features,
              .width = filled(distances),
              .product_features = filled(features),
              .places = places_ ? places_.data<int64_t>() : nullptr,
              .scale = static_cast<float>(scale)};
    const Tensor moved = gpu.scratch(q.shape(), q.dtype());
    gpu.binary(ops::Arithmetic::kAdd, q_,
               ops::shaped(gpu.contiguous(terms.position), {heads, 1, features}), moved);
    moved_ = filled_up(ops::shaped(moved, {pairs_, queries, features}), queries);
    distances_ = filled_up(
        ops::shaped(gpu.contiguous(terms.distances), {groups_ * heads, distances, features}),
        kernel.width);
  }

  // Calls use() for some pairs after the other: kernel.first and kernel.count.
  template <typename Use>
  void for_chunks(const Use& use) {
    const int64_t by_distance = kernel.queries * kernel.width,
                  by_feature = (kernel.queries + kernel.width) * kernel.product_features,
                  each = (by_distance + by_feature) * int64_t{sizeof(float)};
    const int64_t most = std::max<int64_t>(1, kRelativeBytesMax / each);
    for (kernel.first = 0; kernel.first < pairs_; kernel.first += kernel.count) {
      kernel.count = std::min(most, pairs_ - kernel.first);
      use();
    }
  }

  // Each of the pairs' product into out [count, ...]: left(first, count) and right(first, count)
  // give the operands of as many pairs whose distances lie one behind the other. Where nothing may
  // follow from how many pairs there are, one product a pair.
  template <typename Left, typename Right>
  void products(const Left& left, const Right& right, const Tensor& out) const {
    const int64_t end = kernel.first + kernel.count;
    for (int64_t first = kernel.first, count = 0; first < end; first += count) {
      const bool by_row = groups_ * kernel.heads == pairs_;
      const int64_t row_end = (first / kernel.heads + 1) * kernel.heads;
      count = alone_ ? 1 : std::min(end, by_row ? end : row_end) - first;
      gpu_.matmul(left(first, count), right(first, count), 1,
                  part_of(out, first - kernel.first, count));
    }
  }

  // Of these pairs: q + v, [count, Tq, D], and r, [count, R, D], both filled up.
  Tensor moved(int64_t first, int64_t count) const { return part_of(moved_, first, count); }
  Tensor distances(int64_t first, int64_t count) const {
    const int64_t group = first / kernel.heads / (pairs_ / kernel.heads / groups_);
    return part_of(distances_, group * kernel.heads + first % kernel.heads, count);
  }
  template <typename T>
  RelativeSegments<T> segments() const {
    if (!segments_) return {};
    return {q_.data<T>(), segment_.data<T>(), segments_.data<T>(), query_segment_.data<int64_t>(),
            key_segment_.data<int64_t>()};
  }

  RelativePairs kernel;

 private:
  // x [matrices, rows, features] with zeros behind each one's rows and features, aligned.
  Tensor filled_up(const Tensor& x, int64_t rows) const {
    const Shape shape{x.dim(0), rows, kernel.product_features};
    const bool filled = x.shape() == shape;
    if (filled && reinterpret_cast<uintptr_t>(x.raw()) % kAlignment == 0) return x;
    const Tensor whole = gpu_.scratch(shape, x.dtype());
    if (!filled) gpu_.fill(whole, 0);
    gpu_.copy(x, whole.view(x.shape(), whole.strides(), 0));
    return whole;
  }

  Gpu& gpu_;
  const bool alone_;
  const int64_t pairs_, groups_;
  const Tensor q_, segment_, segments_, query_segment_, key_segment_, places_;
  Tensor moved_, distances_;
};

void Gpu::relative_scores(const Tensor& q, const attention::RelativeTerms& terms, double scale,
                          Repeats repeats, const Tensor& scores) {
  activate_device();
  if (scores.elements() == 0) return;
  Relative all(*this, q, scores.dim(3), terms, scale, repeats);
  const RelativePairs& pairs = all.kernel;
  all.for_chunks([&] {
    const Tensor products = scratch(Shape{pairs.count, pairs.queries, pairs.width});
    all.products([&](int64_t first, int64_t count) { return all.moved(first, count); },
                 [&](int64_t first, int64_t count) {
                   return ops::transposed_view(all.distances(first, count));
                 },
                 products);
    for_floating(q, "relative_scores", [&]<typename T>() {
      cuda::relative_scores(pairs, all.segments<T>(), products.data<float>(), scores.data<T>(),
                            stream_);
    });
  });
}

void Gpu::relative_scores_backward(const Tensor& q, const attention::RelativeTerms& terms,
                                   double scale, Repeats repeats, const Tensor& dscores,
                                   const RelativeGradients& gradients) {
  activate_device();
  for (const Tensor& each : {gradients.q, gradients.distances, gradients.position,
                             gradients.segment, gradients.segments}) {
    if (each && dscores.elements() == 0) fill(each, 0);
  }
  if (dscores.elements() == 0) return;
  const Tensor from = contiguous(dscores);
  Relative all(*this, q, dscores.dim(3), terms, scale, repeats);
  const RelativePairs& pairs = all.kernel;
  const int64_t distances = gradients.distances.dim(2);
  const Tensor d_distances =
      ops::shaped(gradients.distances, {q.dim(0) * pairs.heads, distances, pairs.features});
  const auto floats = [](const Tensor& x) { return x ? x.data<float>() : nullptr; };
  const RelativeVectors vectors{floats(gradients.position), floats(gradients.segment),
                                floats(gradients.segments)};
  all.for_chunks([&] {
    const Tensor by_distance = scratch(Shape{pairs.count, pairs.queries, pairs.width}, q.dtype()),
                 sums = scratch(Shape{pairs.count, pairs.queries, 2}),
                 of_queries = scratch(Shape{pairs.count, pairs.queries, pairs.product_features}),
                 of_distances = scratch(Shape{pairs.count, distances, pairs.product_features});
    const auto mine = [&](int64_t first, int64_t count) {
      return part_of(by_distance, first - pairs.first, count);
    };
    for_floating(q, "relative_scores", [&]<typename T>() {
      cuda::relative_by_distance(pairs, all.segments<T>(), from.data<T>(), by_distance.data<T>(),
                                 sums.data<float>(), stream_);
    });
    all.products(
        mine, [&](int64_t first, int64_t count) { return all.distances(first, count); },
        of_queries);
    all.products(
        [&](int64_t first, int64_t count) {
          const Tensor turned = ops::transposed_view(mine(first, count));
          return turned.view(Shape{count, distances, pairs.queries}, turned.strides(), 0);
        },
        [&](int64_t first, int64_t count) { return all.moved(first, count); }, of_distances);
    for_floating(q, "relative_scores", [&]<typename T>() {
      cuda::relative_queries(pairs, all.segments<T>(), of_queries.data<float>(), sums.data<float>(),
                             gradients.q.data<T>(), vectors, stream_);
    });
    const Tensor sums_of_distances = part_of(d_distances, pairs.first, pairs.count);
    this->scale(of_distances.view(sums_of_distances.shape(), of_distances.strides(), 0), scale,
                sums_of_distances);
  });
}

}  // namespace weft::cuda
