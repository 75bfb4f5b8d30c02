#include "worker/parallel/head_exchange.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "kernels/tensor/strided.h"
#include "worker/parallel/tree_sum.h"

namespace weft::parallel {
namespace {

constexpr int kHeadDim = 1, kTokenDim = 2;

// x's [start, start + length) along dim.
Tensor narrowed(const Tensor& x, int dim, Part part) {
  Shape shape = x.shape();
  shape[dim] = part.length;
  return x.view(shape, x.strides(), part.start * x.strides()[static_cast<size_t>(dim)]);
}

// Blocks [B, N, T, D] one behind the other in one buffer, as the transports move them.
struct Blocks {
  explicit Blocks(std::vector<Shape> block_shapes) : shapes(std::move(block_shapes)) {
    for (const Shape& shape : shapes) {
      starts.push_back(elements);
      counts.push_back(shape.elements());
      elements += shape.elements();
    }
  }
  Tensor block(const Tensor& buffer, size_t rank) const {
    const Strides strides = row_major_strides(shapes[rank]);
    return buffer.view(shapes[rank], std::span(strides).first(4), starts[rank]);
  }

  std::vector<Shape> shapes;
  std::vector<int64_t> starts, counts;
  int64_t elements = 0;
};

Tensor exchanged(Context& cx, Communicator& comm, const Blocks& sent, const Tensor& packed,
                 const Blocks& received) {
  Tensor buffer = Tensor::empty(cx.allocator, {received.elements}, packed.dtype());
  comm.all_to_all(packed, sent.counts, buffer, received.counts);
  return buffer;
}

}  // namespace

Tensor HeadExchange::to_heads(Context& cx, const Tensor& x) const {
  WEFT_CHECK(x.dim(1) == all_heads && x.dim(2) == own_tokens(), "{} of {} heads, {} tokens",
             x.shape().to_string(), all_heads, own_tokens());
  const int64_t rows = x.dim(0), features = x.dim(3);
  std::vector<Shape> out_shapes, in_shapes;
  for (const Part& part : heads) out_shapes.push_back({rows, part.length, own_tokens(), features});
  for (int64_t count : tokens) in_shapes.push_back({rows, own_heads().length, count, features});
  const Blocks sent(std::move(out_shapes)), received(std::move(in_shapes));
  const Tensor packed = Tensor::empty(cx.allocator, {sent.elements}, x.dtype());
  for (size_t r = 0; r < heads.size(); ++r) {
    copy_into(cx.pool, narrowed(x, kHeadDim, heads[r]), sent.block(packed, r));
  }
  const Tensor buffer = exchanged(cx, comm, sent, packed, received);
  const int64_t all_tokens = std::accumulate(tokens.begin(), tokens.end(), int64_t{0});
  const Tensor y =
      Tensor::empty(cx.allocator, {rows, own_heads().length, all_tokens, features}, x.dtype());
  int64_t start = 0;
  for (size_t r = 0; r < tokens.size(); ++r) {
    copy_into(cx.pool, received.block(buffer, r), narrowed(y, kTokenDim, {start, tokens[r]}));
    start += tokens[r];
  }
  return y;
}

Tensor HeadExchange::to_tokens(Context& cx, const Tensor& x) const {
  const int64_t rows = x.dim(0), features = x.dim(3);
  std::vector<Shape> out_shapes, in_shapes;
  for (int64_t count : tokens) out_shapes.push_back({rows, own_heads().length, count, features});
  for (const Part& part : heads) in_shapes.push_back({rows, part.length, own_tokens(), features});
  const Blocks sent(std::move(out_shapes)), received(std::move(in_shapes));
  const Tensor packed = Tensor::empty(cx.allocator, {sent.elements}, x.dtype());
  int64_t start = 0;
  for (size_t r = 0; r < tokens.size(); ++r) {
    copy_into(cx.pool, narrowed(x, kTokenDim, {start, tokens[r]}), sent.block(packed, r));
    start += tokens[r];
  }
  WEFT_CHECK(x.dim(1) == own_heads().length && x.dim(2) == start, "{} of {} heads, {} tokens",
             x.shape().to_string(), own_heads().length, start);
  const Tensor buffer = exchanged(cx, comm, sent, packed, received);
  const Tensor storage =
      Tensor::empty(cx.allocator, {rows, own_tokens(), all_heads, features}, x.dtype());
  const std::array<int64_t, 4> strides{own_tokens() * all_heads * features, features,
                                       all_heads * features, 1};
  const Tensor y = storage.view({rows, all_heads, own_tokens(), features}, strides, 0);
  for (int64_t head = 0; head < all_heads; ++head) {
    std::vector<char> holds;
    for (const Part& part : heads) {
      holds.push_back(head >= part.start && head < part.start + part.length);
    }
    const auto term = [&](int64_t r) {
      const auto rank = static_cast<size_t>(r);
      return narrowed(received.block(buffer, rank), kHeadDim, {head - heads[rank].start, 1});
    };
    merge_tree(holds,
               [&](int64_t into, int64_t from) { add_into(cx.pool, term(from), term(into)); });
  }
  int64_t filled = 0;  // heads below it have been written
  for (size_t r = 0; r < heads.size(); ++r) {
    const int64_t end = heads[r].start + heads[r].length;
    const int64_t first = std::clamp(filled, heads[r].start, end);  // the first to hold it
    copy_into(cx.pool,
              narrowed(received.block(buffer, r), kHeadDim, {first - heads[r].start, end - first}),
              narrowed(y, kHeadDim, {first, end - first}));
    filled = std::max(filled, end);
  }
  WEFT_CHECK(filled == all_heads, "{} of {} heads are held", filled, all_heads);
  return y;
}

}  // namespace weft::parallel
