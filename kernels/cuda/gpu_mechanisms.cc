// Attention other than scaled dot products: compared scores, prefix products, drawn keys.
#include <algorithm>
#include <array>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/typed.h"

namespace weft::cuda {
namespace {

constexpr int64_t kChunk = 64;  // tokens whose products with each other are made

ComparedShape shape_of(const Tensor& q, const Tensor& k) {
  return {q.dim(0), q.dim(1), k.dim(1), q.dim(2)};
}

// Contiguous x as [chunks, sequences, tokens of a chunk, features] from chunk `first` on.
struct Chunks {
  int64_t sequences, tokens, length, count;
  Shape shape(int64_t features) const { return {count, sequences, length, features}; }
};

// Moves tokens between x [sequences, tokens, features] and `chunked`; what is left of the last
// chunk stands apart, since it is shorter.
template <typename Move>
void for_parts(const Chunks& c, const Tensor& x, const Tensor& chunked, Move move) {
  const int64_t features = chunked.dim(3), whole = c.tokens / c.length, rest = c.tokens % c.length;
  const auto part = [&](int64_t first, int64_t count, int64_t length) {
    if (count * length == 0) return;
    const Shape shape{count, c.sequences, length, features};
    const std::array<int64_t, 4> in_x{c.length * features, c.tokens * features, features, 1};
    move(x.view(shape, in_x, first * c.length * features),
         chunked.view(shape, chunked.strides(), first * chunked.strides()[0]));
  };
  part(0, whole, c.length);
  part(whole, 1, rest);
}

}  // namespace

void Gpu::compared(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& scores) {
  activate_device();
  const Tensor query = contiguous(q), key = contiguous(k), weight = contiguous(v);
  for_floating(scores, "compared", [&]<typename T>() {
    cuda::compared(shape_of(q, k), query.data<T>(), key.data<T>(), weight.data<T>(),
                   scores.data<T>(), stream_);
  });
}

void Gpu::compared_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                            const Tensor& dscores, const Tensor& dq, const Tensor& dk,
                            const Tensor& dv_by_row) {
  activate_device();
  const Tensor query = contiguous(q), key = contiguous(k), weight = contiguous(v);
  const Tensor gradient = contiguous(dscores), by_query = scratch(q.shape());
  for_floating(dq, "compared", [&]<typename T>() {
    cuda::compared_backward(shape_of(q, k), query.data<T>(), key.data<T>(), weight.data<T>(),
                            gradient.data<T>(), dq.data<T>(), dk.data<T>(), by_query.data<float>(),
                            stream_);
  });
  sum_middle(by_query, {q.dim(0), q.dim(1), q.dim(2)}, 1, 1, dv_by_row);
}

// All chunks of all sequences at once: y = (masked q k^T) v + q state, where the state of a chunk
// is the sum of the k^T v before it (reversed: behind it).
void Gpu::prefix_product(const Tensor& q, const Tensor& k, const Tensor& v, bool reversed,
                         const Tensor& y) {
  activate_device();
  if (y.elements() == 0) return;
  const int64_t tokens = q.dim(-2), features = q.dim(-1), values = v.dim(-1);
  const int64_t sequences = ops::row_count(q.shape()) / tokens, length = std::min(kChunk, tokens);
  const Chunks c{sequences, tokens, length, (tokens + length - 1) / length};
  if (features == 0) return fill(y, 0);
  const auto in_chunks = [&](const Tensor& x) {
    const Tensor chunked = scratch(c.shape(x.dim(-1)), x.dtype());
    if (tokens % length != 0) fill(chunked, 0);
    for_parts(c, contiguous(x), chunked, [&](const Tensor& a, const Tensor& b) { copy(a, b); });
    return chunked;
  };
  const Tensor query = in_chunks(q), key = in_chunks(k), value = in_chunks(v);
  const Tensor scores = scratch(c.shape(length), q.dtype()),
               seen = scratch(c.shape(length), q.dtype());
  const Tensor mask = scratch(Shape{length, length}, DType::kU8),
               zero = scratch(Shape{}, q.dtype());
  fill(zero, 0);
  matmul(query, ops::transposed_view(key), 1, scores);
  triangular_mask(reversed ? -1 : 0, mask);
  where(mask, reversed ? zero : scores, reversed ? scores : zero, seen);
  const Tensor out = scratch(c.shape(values), q.dtype());
  matmul(seen, value, 1, out);
  if (c.count > 1) {
    // Of one chunk more: it holds nothing, and lies where the sums begin.
    const Shape states{c.count + 1, sequences, features, values},
        of_chunks{c.count, sequences, features, values};
    const Tensor sums = scratch(states, q.dtype()), more = scratch(c.shape(values), q.dtype());
    const int64_t state = sequences * features * values;
    const auto from = [&](int64_t chunk) {
      return sums.view(of_chunks, sums.strides(), chunk * state);
    };
    fill(sums, 0);
    matmul(ops::transposed_view(key), value, 1, from(reversed ? 0 : 1));
    cumulative_sum(sums, {1, c.count + 1, state}, reversed, sums);
    matmul(query, from(reversed ? 1 : 0), 1, more);
    add(more, out);
  }
  for_parts(c, y, out, [&](const Tensor& a, const Tensor& b) { copy(b, a); });
}

void Gpu::draw(const Tensor& scores, RandomKey key, const ops::GlobalIndex& where,
               const Tensor& index) {
  activate_device();
  const Tensor from = contiguous(scores);
  const Strides global = row_major_strides(where.global);
  int64_t first = 0;
  for (size_t dim = 0; dim < where.offset.size(); ++dim) first += where.offset[dim] * global[dim];
  const Walk<1> walk = walk_of<1>(
      index.shape(),
      {std::span<const int64_t>(global).first(static_cast<size_t>(index.shape().dims()))});
  for_floating(scores, "draw", [&]<typename T>() {
    cuda::draw(walk, from.data<T>(), scores.dim(-1), device_key(key), first, index.data<int64_t>(),
               stream_);
  });
}

void Gpu::rows_of_index(const Tensor& index, int64_t extent, const Tensor& out) {
  activate_device();
  const Tensor from = contiguous(index);
  cuda::rows_of_index(from.data<int64_t>(), index.dim(0), index.dim(1), extent, out.data<int64_t>(),
                      stream_);
}

}  // namespace weft::cuda
