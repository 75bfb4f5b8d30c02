// What the loops of forward and backward share: extents, tensors, the scores of a tile, scratch
// memory and the sharing of items among threads. Internal to kernels/attention.
//
// Thread safety: a Problem is constant after construction but for its count; Scratch and TileExtras
// are one thread's.
#pragma once

#include <algorithm>
#include <atomic>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/mask.h"
#include "kernels/cpu/tiles.h"

namespace weft::attention {

inline constexpr int64_t kLanes = cpu::kTileLanes;  // queries of a tile

inline int64_t parts_of(int64_t extent, int64_t unit) { return (extent + unit - 1) / unit; }

struct Extents {
  int64_t rows, heads, key_heads, queries, keys, features, value_features;
  int64_t group() const { return key_heads == 0 ? 1 : heads / key_heads; }  // no heads: no work
  int64_t tiles() const { return parts_of(queries, kLanes); }
};

// Calls f.operator()<In>() for the inputs' dtype.
template <typename F>
decltype(auto) dispatch_inputs(DType dtype, F&& f) {
  if (dtype == DType::kF64) return f.template operator()<double>();
  if (dtype == DType::kBF16) return f.template operator()<bfloat16>();
  WEFT_CHECK(dtype == DType::kF32, "attention of {}", dtype_name(dtype));
  return f.template operator()<float>();
}

// Memory of one thread, released when it ends.
class Scratch {
 public:
  explicit Scratch(Allocator& allocator) : allocator_(allocator) {}
  void* bytes(int64_t count) {
    held_.push_back(Tensor::empty(allocator_, Shape{std::max<int64_t>(count, 1)}, DType::kU8));
    return held_.back().raw();
  }
  template <typename T>
  T* of(int64_t count) {
    return static_cast<T*>(bytes(count * static_cast<int64_t>(sizeof(T))));
  }

 private:
  Allocator& allocator_;
  std::vector<Tensor> held_;
};

// The pool's threads take items [0, count) one after the other, in order, as they become free.
// make() gives a thread its worker, which is called with item after item.
template <typename Make>
void share_items(ThreadPool& pool, int64_t count, const Make& make) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(pool.size(), count);
  pool.parallel_for(threads, 1, [&](int64_t, int64_t) {
    auto worker = make();
    for (int64_t item = next++; item < count; item = next++) worker(item);
  });
}

// The innermost dim of a matrix has to lie tight, and rows must not overlap.
Tensor with_tight_rows(Context& cx, const Tensor& x);

template <typename T>
cpu::TileRows<T> rows_of(const Tensor& x, int64_t row, int64_t head, int64_t token) {
  using Value = std::remove_const_t<T>;
  const std::span<const int64_t> strides = x.strides();
  const int64_t step = std::max(strides[2], x.shape()[3]);
  return {x.data<Value>() + row * strides[0] + head * strides[1] + token * step, step};
}

// log_sum_exp and delta of a tile's queries; weights become 0 where nothing is seen or no query is.
template <typename Sum>
void load_tile_sums(const Tensor& log_sum_exp, const Tensor& delta, int64_t first, int64_t queries,
                    Sum* tile_lse, Sum* tile_delta) {
  constexpr Sum kFar = std::numeric_limits<Sum>::infinity();
  for (int64_t i = 0; i < kLanes; ++i) {
    const bool seen = i < queries && log_sum_exp.data<Sum>()[first + i] != -kFar;
    tile_lse[i] = seen ? log_sum_exp.data<Sum>()[first + i] : kFar;
    tile_delta[i] = seen ? delta.data<Sum>()[first + i] : Sum{0};
  }
}

template <typename In>
struct Problem {
  using Sum = typename cpu::SumOf<In>::type;

  Context& cx;
  const Parameters& parameters;
  const Extents e;
  const Tensor q, k, v, bias, sinks;
  const Tensor distance_bias;  // [groups N, distance_entries], of Sum, as tiles read it; or absent
  const Mask mask;
  const cpu::TileKernels<In>& kernels;

  Problem(Context& context, const Tensor& query, const Tensor& key, const Tensor& value,
          const Parameters& p);

  // Bytes of a packed operand of `rows` by `columns`, whichever of the two is in words.
  int64_t operand_bytes(int64_t rows, int64_t columns) const {
    return (rows + kernels.step) * (columns + kernels.step) * kernels.word_bytes / kernels.step;
  }
  // Memory for what by_feature and by_row return of up to `rows` keys.
  void* side_memory(Scratch& scratch, int64_t rows, int64_t columns) const {
    return kernels.copies ? scratch.bytes(operand_bytes(std::min(rows, e.keys), columns)) : nullptr;
  }
  int64_t key_head(int64_t head) const { return head / e.group(); }
  bool adjusts() const {
    return parameters.soft_cap > 0 || !parameters.alibi_slopes.empty() || bias || distance_bias ||
           mask.arbitrary();
  }
  int64_t reach() const { return (parameters.distance_bias.shape()[-1] - 1) / 2; }
  // Rows of the batch that have one table by distance.
  int64_t rows_of_table() const {
    const Tensor& tables = parameters.distance_bias;
    return tables.shape().dims() == 3 ? e.rows / tables.dim(0) : e.rows;
  }
  int64_t distance_row(int64_t row, int64_t head) const {
    return row / rows_of_table() * e.heads + head;
  }
  cpu::DistanceTerms distances(const Tile& tile) const {
    return {mask.query_position(tile), mask.key_position(tile), tile.queries,
            static_cast<int32_t>(reach())};
  }
  bool drops() const { return parameters.dropout.rate > 0; }

  // Scores that were taken, those of lanes without a query among them.
  void count(int64_t keys) const { scores_.fetch_add(keys * kLanes, std::memory_order_relaxed); }
  // Told when all are: how many products each score has part in, along the features of keys and of
  // values.
  void report(int64_t key_products, int64_t value_products) const {
    if (cx.attention_flops == nullptr) return;
    const int64_t each = key_products * e.features + value_products * e.value_features;
    *cx.attention_flops += 2 * each * scores_.load();
  }

 private:
  mutable std::atomic<int64_t> scores_{0};
};

// What a tile needs beside its scores: bias, what dropout keeps, the soft cap's slope.
template <typename In>
class TileExtras {
 public:
  using Sum = typename cpu::SumOf<In>::type;
  TileExtras(const Problem<In>& problem, Scratch& scratch, int64_t keys);

  // scores [K, Q], scale q k^T on entry, become what softmax is taken of, -infinity where `view`
  // or the mask hides. with_slope: for the backward pass.
  void finish_scores(const Tile& tile, TileView view, bool with_slope, Sum* scores);
  const Sum* slope() const { return p_.parameters.soft_cap > 0 ? slope_ : nullptr; }
  // [K, Q] of the tile, or null where nothing is dropped.
  const Sum* keep(const Tile& tile);

 private:
  const Sum* added(const Tile& tile);

  const Problem<In>& p_;
  Sum *by_query_ = nullptr, *bias_ = nullptr, *keep_ = nullptr, *slope_ = nullptr;
};

}  // namespace weft::attention
