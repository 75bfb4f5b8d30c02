// A thread takes a chunk of the keys of one head (or of several heads that share them), walks its
// tiles of keys, for each the queries that see them, and takes the scores anew. Gradients of keys
// and values stay with their tile; those of queries are summed in tiles [D, Q] of the chunk.
//
// So that few long heads keep many threads busy, heads that share keys are cut into parts and keys
// into chunks; parts' and chunks' sums are added in their order. Both counts depend on sizes only.
#include <array>
#include <cmath>
#include <memory>

#include "kernels/attention/block.h"
#include "kernels/attention/problem.h"
#include "kernels/cuda/backend.h"
#include "kernels/tensor/strided.h"

namespace weft::attention {
namespace {

constexpr int64_t kKeys = 512;      // of a tile, at most
constexpr int64_t kChunk = 256;     // keys of a chunk, at least
constexpr int64_t kBlock = 64;      // keys whose scores are taken at once
constexpr int64_t kItems = 16;      // at least as many where the sizes allow it
constexpr int64_t kWidthUnit = 16;  // of the sums of keys and values

int64_t padded(int64_t width) { return parts_of(width, kWidthUnit) * kWidthUnit; }

// How the work is cut. A unit is one head of keys of one row.
struct Plan {
  int64_t units, parts, chunks, heads, keys_per_chunk;  // heads, of queries, in a part

  // in_blocks: whatever the rows and heads here, so that no gradient depends on their number.
  Plan(const Extents& e, bool in_blocks) : units(e.rows * e.key_heads) {
    const int64_t wanted = in_blocks ? 1 : parts_of(kItems, std::max<int64_t>(units, 1));
    parts = std::min(e.group(), wanted);
    while (e.group() % parts != 0) ++parts;
    chunks = std::clamp<int64_t>(parts_of(wanted, parts), 1, std::max<int64_t>(1, e.keys / kChunk));
    keys_per_chunk = std::max(kBlock, parts_of(e.keys, chunks * kBlock) * kBlock);
    chunks = std::max<int64_t>(1, parts_of(e.keys, keys_per_chunk));
    heads = e.group() / parts;
  }
  int64_t items() const { return units * parts * chunks; }
};

// Sums of one item over the queries of its heads: tiles [D, Q], and which of them hold anything.
template <typename Sum>
struct QuerySums {
  Sum* sums = nullptr;
  uint8_t* touched = nullptr;
};

template <typename In>
struct Sums {
  using Sum = typename cpu::SumOf<In>::type;

  const Problem<In>& p;
  const Plan plan;
  const BlockGrads& grads;
  const int64_t query_tiles, query_tile_size, key_width, value_width;
  Scratch shared;
  Sum *chunk_sums = nullptr, *part_keys = nullptr, *part_values = nullptr;
  Sum* distance_sums = nullptr;
  uint8_t* chunk_touched = nullptr;

  Sums(const Problem<In>& problem, const BlockGrads& outputs)
      : p(problem),
        plan(problem.e, problem.cx.block_count > 0),
        grads(outputs),
        query_tiles(plan.heads * problem.e.tiles()),
        query_tile_size(problem.e.features * kLanes),
        key_width(padded(problem.e.features)),
        value_width(padded(problem.e.value_features)),
        shared(problem.cx.allocator) {
    if (plan.chunks > 1) {
      chunk_sums = shared.of<Sum>(plan.items() * query_tiles * query_tile_size);
      chunk_touched = shared.of<uint8_t>(plan.items() * query_tiles);
    }
    if (plan.parts > 1) {
      part_keys = shared.of<Sum>(plan.units * plan.parts * p.e.keys * key_width);
      part_values = shared.of<Sum>(plan.units * plan.parts * p.e.keys * value_width);
    }
    if (grads.distance_bias) {
      distance_sums = shared.of<Sum>(plan.items() * plan.heads * p.distance_bias.dim(1));
    }
  }

  // What an item adds to the gradient of the table by distance of one of its heads.
  Sum* distances_of(int64_t item, int64_t head) const {
    return distance_sums + (item * plan.heads + head) * p.distance_bias.dim(1);
  }

  QuerySums<Sum> of_chunk(int64_t item) const {
    return {chunk_sums + item * query_tiles * query_tile_size, chunk_touched + item * query_tiles};
  }
  int64_t first_head(int64_t unit, int64_t part) const {
    return unit % p.e.key_heads * p.e.group() + part * plan.heads;
  }

  // A finished tile of queries goes out; null: nothing was seen.
  void store_queries(const Tile& tile, const Sum* sums) const {
    Sum factor[kLanes];
    std::fill_n(factor, kLanes, static_cast<Sum>(p.parameters.scale));
    const auto store = [&]<typename Out>(auto kernel) {
      const cpu::TileRows<Out> to = rows_of<Out>(grads.q, tile.row, tile.head, tile.query);
      if (sums != nullptr) return kernel(sums, tile.queries, p.e.features, factor, to);
      for (int64_t i = 0; i < tile.queries; ++i) {
        std::fill_n(to.data + i * to.stride, p.e.features, static_cast<Out>(Sum{0}));
      }
    };
    if (grads.q.dtype() == DTypeOf<In>::value) {
      store.template operator()<In>(p.kernels.store_lanes);
    } else {
      store.template operator()<Sum>(p.kernels.store_lanes_wide);
    }
  }
  // Rows of finished sums, `width` apart, go out.
  void store_keys(const Tensor& to, int64_t unit, int64_t key, int64_t keys, const Sum* sums,
                  int64_t width, Sum factor) const {
    const int64_t row = unit / p.e.key_heads, head = unit % p.e.key_heads, features = to.dim(3);
    if (to.dtype() == DTypeOf<In>::value) {
      p.kernels.store_rows(sums, keys, features, width, factor, rows_of<In>(to, row, head, key));
    } else {
      p.kernels.store_rows_wide(sums, keys, features, width, factor,
                                rows_of<Sum>(to, row, head, key));
    }
  }
};

template <typename In>
class Backward {
 public:
  using Sum = typename cpu::SumOf<In>::type;
  Backward(const Sums<In>& sums, const Tensor& d_output, const Tensor& log_sum_exp,
           const Tensor& delta)
      : p_(sums.p),
        s_(sums),
        d_output_(d_output),
        log_sum_exp_(log_sum_exp),
        delta_(delta),
        scratch_(sums.p.cx.allocator),
        extras_(p_, scratch_, kBlock) {
    const auto packed = [&](int64_t rows, int64_t columns) {
      return scratch_.bytes(p_.operand_bytes(rows, columns));
    };
    const Extents& e = p_.e;
    keys_memory_ = p_.side_memory(scratch_, kKeys, e.features);
    values_memory_ = p_.side_memory(scratch_, kKeys, e.value_features);
    query_lanes_ = packed(kLanes, e.features);
    query_rows_ = packed(kLanes, s_.key_width);
    d_lanes_ = packed(kLanes, e.value_features);
    d_rows_ = packed(kLanes, s_.value_width);
    scores_ = scratch_.of<Sum>(kBlock * kLanes);
    d_weights_ = scratch_.of<Sum>(kBlock * kLanes);
    weights_ = scratch_.bytes(p_.operand_bytes(kBlock, kLanes));
    d_scores_ = scratch_.bytes(p_.operand_bytes(kBlock, kLanes));
    d_score_words_ = in_pairs() ? scratch_.bytes(p_.operand_bytes(kBlock, kLanes)) : d_scores_;
    if (in_pairs()) key_words_memory_ = p_.side_memory(scratch_, kKeys, e.features);
    if (s_.plan.parts == 1) {
      key_sums_ = scratch_.of<Sum>(kKeys * s_.key_width);
      value_sums_ = scratch_.of<Sum>(kKeys * s_.value_width);
    }
    if (s_.plan.chunks == 1) {
      own_ = {scratch_.of<Sum>(s_.query_tiles * s_.query_tile_size),
              scratch_.of<uint8_t>(s_.query_tiles)};
    }
  }

  void operator()(int64_t item) {
    const int64_t chunk = item % s_.plan.chunks, part = item / s_.plan.chunks % s_.plan.parts;
    const int64_t unit = item / s_.plan.chunks / s_.plan.parts;
    queries_ = s_.plan.chunks == 1 ? own_ : s_.of_chunk(item);
    std::fill_n(queries_.touched, s_.query_tiles, uint8_t{0});
    if (s_.grads.distance_bias) {
      distances_ = s_.distances_of(item, 0);
      std::fill_n(distances_, s_.plan.heads * p_.distance_bias.dim(1), Sum{0});
    }
    const int64_t first = chunk * s_.plan.keys_per_chunk;
    const int64_t last = std::min(p_.e.keys, first + s_.plan.keys_per_chunk);
    for (int64_t key = first; key < last; key += kKeys) {
      one_tile_of_keys(unit, part, key, std::min(kKeys, last - key));
    }
    if (s_.plan.chunks > 1) return;
    for (int64_t at = 0; at < s_.query_tiles; ++at) {
      s_.store_queries(tile_of(unit, part, at), queries_.touched[at] != 0
                                                    ? queries_.sums + at * s_.query_tile_size
                                                    : nullptr);
    }
  }

 private:
  // Else words along features and words along rows are the same.
  bool in_pairs() const { return p_.kernels.step > 1; }
  // Tile `at` of those of a part's heads.
  Tile tile_of(int64_t unit, int64_t part, int64_t at) const {
    const int64_t tiles = p_.e.tiles(), query = at % tiles * kLanes;
    return {unit / p_.e.key_heads, s_.first_head(unit, part) + at / tiles, query,
            std::min(kLanes, p_.e.queries - query)};
  }

  void one_tile_of_keys(int64_t unit, int64_t part, int64_t key, int64_t keys) {
    const int64_t row = unit / p_.e.key_heads, head = unit % p_.e.key_heads;
    Sum *key_sums = key_sums_, *value_sums = value_sums_;
    if (s_.plan.parts > 1) {
      const int64_t at = (unit * s_.plan.parts + part) * p_.e.keys + key;
      key_sums = s_.part_keys + at * s_.key_width;
      value_sums = s_.part_values + at * s_.value_width;
    }
    std::fill_n(key_sums, keys * s_.key_width, Sum{0});
    std::fill_n(value_sums, keys * s_.value_width, Sum{0});
    const auto k = rows_of<const In>(p_.k, row, head, key);
    keys_ = p_.kernels.by_feature(k, keys, p_.e.features, keys_memory_);
    key_words_ = in_pairs() ? p_.kernels.by_row(k, keys, p_.e.features, key_words_memory_) : keys_;
    values_ = p_.kernels.by_feature(rows_of<const In>(p_.v, row, head, key), keys,
                                    p_.e.value_features, values_memory_);
    for (int64_t at = 0; at < s_.query_tiles; ++at) {
      const Tile tile = tile_of(unit, part, at);
      if (!p_.mask.keys_seen(row, tile.query).meets(key, key + keys)) continue;
      one_tile(tile, at, key, keys, key_sums, value_sums);
    }
    if (s_.plan.parts > 1) return;
    s_.store_keys(s_.grads.k, unit, key, keys, key_sums, s_.key_width,
                  static_cast<Sum>(p_.parameters.scale));
    s_.store_keys(s_.grads.v, unit, key, keys, value_sums, s_.value_width, Sum{1});
  }

  // Queries `tile` (their keys still unset) by the keys [key, key + keys).
  void one_tile(Tile tile, int64_t at, int64_t key, int64_t keys, Sum* key_sums, Sum* value_sums) {
    const Span seen = p_.mask.keys_seen(tile.row, tile.query);
    const int64_t last = std::min(seen.end, key + keys);
    bool packed = false;
    for (int64_t block = key; block < last; block += kBlock) {
      // Of a block only what may be seen; from a whole word on.
      const int64_t skipped = std::max<int64_t>(0, seen.begin - block);
      tile.key = block + skipped / p_.kernels.step * p_.kernels.step;
      tile.keys = std::min(last, block + kBlock) - tile.key;
      if (tile.keys <= 0) continue;
      const TileView view = p_.mask.view(tile);
      if (view == TileView::kNone) continue;
      p_.count(tile.keys);
      if (!packed) pack(tile);
      packed = true;
      one_block(tile, view, tile.key - key, at, key_sums, value_sums);
    }
  }

  void pack(const Tile& tile) {
    const auto q = rows_of<const In>(p_.q, tile.row, tile.head, tile.query);
    const auto d = rows_of<const In>(d_output_, tile.row, tile.head, tile.query);
    p_.kernels.pack_lanes(q, tile.queries, p_.e.features, query_lanes_);
    p_.kernels.pack_rows(q, tile.queries, p_.e.features, s_.key_width, query_rows_);
    p_.kernels.pack_lanes(d, tile.queries, p_.e.value_features, d_lanes_);
    p_.kernels.pack_rows(d, tile.queries, p_.e.value_features, s_.value_width, d_rows_);
    const int64_t first = (tile.row * p_.e.heads + tile.head) * p_.e.queries + tile.query;
    load_tile_sums(log_sum_exp_, delta_, first, tile.queries, tile_lse_, tile_delta_);
  }

  // p = exp(s - lse); dv += (keep p)^T dout; ds = p (keep (dout v^T) - delta); dq += ds k; dk +=
  // ds^T q. `from`: the first key within the tile of keys.
  void one_block(const Tile& tile, TileView view, int64_t from, int64_t at, Sum* key_sums,
                 Sum* value_sums) {
    const Extents& e = p_.e;
    const auto rows_from = [&](cpu::Operand x, int64_t step) {
      return cpu::Operand{static_cast<const char*>(x.data) + from / step * x.step_bytes,
                          x.stride_bytes, x.step_bytes};
    };
    p_.kernels.scores(tile.keys, e.features, static_cast<Sum>(p_.parameters.scale),
                      rows_from(keys_, 1), query_lanes_, scores_);
    extras_.finish_scores(tile, view, true, scores_);
    p_.kernels.scores(tile.keys, e.value_features, Sum{1}, rows_from(values_, 1), d_lanes_,
                      d_weights_);
    const cpu::GradientTerms<Sum> terms{scores_,     d_weights_,         tile_lse_,
                                        tile_delta_, extras_.keep(tile), extras_.slope()};
    p_.kernels.gradient(tile.keys, terms, weights_, d_scores_, d_score_words_);
    if (distances_ != nullptr) sum_distances(tile, at, terms);
    p_.kernels.spread(tile.keys, s_.value_width, weights_, d_rows_, false,
                      value_sums + from * s_.value_width);
    p_.kernels.spread(tile.keys, s_.key_width, d_scores_, query_rows_, false,
                      key_sums + from * s_.key_width);
    p_.kernels.collect(e.features, tile.keys, rows_from(key_words_, p_.kernels.step),
                       d_score_words_, queries_.touched[at] == 0, nullptr,
                       queries_.sums + at * s_.query_tile_size);
    queries_.touched[at] = 1;
  }

  // Of the scores behind the soft cap, in full precision.
  void sum_distances(const Tile& tile, int64_t at, cpu::GradientTerms<Sum> terms) {
    const Sum* d_scores = static_cast<const Sum*>(d_scores_);
    if (in_pairs() || terms.slope != nullptr) {
      terms.slope = nullptr;
      p_.kernels.gradient_only(tile.keys, terms, scores_);
      d_scores = scores_;
    }
    p_.kernels.sum_distances(tile.keys, p_.distances(tile), d_scores,
                             distances_ + at / p_.e.tiles() * p_.distance_bias.dim(1));
  }

  const Problem<In>& p_;
  const Sums<In>& s_;
  const Tensor &d_output_, &log_sum_exp_, &delta_;
  Scratch scratch_;
  TileExtras<In> extras_;
  QuerySums<Sum> own_, queries_;  // of this thread where there is one chunk; of the item
  // A tile of keys: memory of copies, and what the products take.
  void *keys_memory_, *key_words_memory_ = nullptr, *values_memory_;
  cpu::Operand keys_, key_words_, values_;
  Sum *key_sums_ = nullptr, *value_sums_ = nullptr;
  Sum* distances_ = nullptr;  // of the item's heads
  // A tile of queries, packed; a block.
  void *query_lanes_, *query_rows_, *d_lanes_, *d_rows_;
  Sum *scores_, *d_weights_;
  void *weights_, *d_scores_, *d_score_words_;
  Sum tile_lse_[kLanes], tile_delta_[kLanes];
};

// The chunks' sums over each tile of queries, added in order.
template <typename In>
void add_chunks(const Sums<In>& s) {
  using Sum = typename cpu::SumOf<In>::type;
  const Problem<In>& p = s.p;
  const int64_t tiles = p.e.tiles(), size = s.query_tile_size;
  share_items(p.cx.pool, s.plan.units * s.plan.parts * s.query_tiles, [&] {
    return [&](int64_t item) {
      const int64_t at = item % s.query_tiles, owner = item / s.query_tiles;
      const int64_t unit = owner / s.plan.parts, query = at % tiles * kLanes;
      Sum* whole = nullptr;
      for (int64_t chunk = 0; chunk < s.plan.chunks; ++chunk) {
        const QuerySums<Sum> part = s.of_chunk(owner * s.plan.chunks + chunk);
        if (part.touched[at] == 0) continue;
        Sum* sums = part.sums + at * size;
        for (int64_t i = 0; i < size && whole != nullptr; ++i) whole[i] += sums[i];
        if (whole == nullptr) whole = sums;
      }
      const int64_t head = s.first_head(unit, owner % s.plan.parts) + at / tiles;
      s.store_queries({unit / p.e.key_heads, head, query, std::min(kLanes, p.e.queries - query)},
                      whole);
    };
  });
}

// The parts' sums over each tile of keys, added in order.
template <typename In>
void add_parts(const Sums<In>& s) {
  using Sum = typename cpu::SumOf<In>::type;
  const Problem<In>& p = s.p;
  const int64_t tiles = parts_of(p.e.keys, kBlock);
  share_items(p.cx.pool, s.plan.units * tiles, [&] {
    return [&](int64_t item) {
      const int64_t unit = item / tiles, key = item % tiles * kBlock;
      const int64_t keys = std::min(kBlock, p.e.keys - key);
      const auto add = [&](Sum* sums, int64_t width, const Tensor& to, Sum factor) {
        const auto part_at = [&](int64_t part) {
          return sums + ((unit * s.plan.parts + part) * p.e.keys + key) * width;
        };
        Sum* whole = part_at(0);
        for (int64_t part = 1; part < s.plan.parts; ++part) {
          const Sum* other = part_at(part);
          for (int64_t i = 0; i < keys * width; ++i) whole[i] += other[i];
        }
        s.store_keys(to, unit, key, keys, whole, width, factor);
      };
      add(s.part_keys, s.key_width, s.grads.k, static_cast<Sum>(p.parameters.scale));
      add(s.part_values, s.value_width, s.grads.v, Sum{1});
    };
  });
}

// The items' sums by distance, added in order of a table's rows and their chunks.
template <typename In>
void add_distances(const Sums<In>& s) {
  using Sum = typename cpu::SumOf<In>::type;
  const Extents& e = s.p.e;
  const Tensor& to = s.grads.distance_bias;
  const int64_t entries = s.p.distance_bias.dim(1), reach = s.p.reach(), width = 2 * reach + 1;
  const int64_t rows = s.p.rows_of_table();
  share_items(s.p.cx.pool, to.elements() / width, [&] {
    return [&, sums = std::vector<double>()](int64_t item) mutable {
      const int64_t head = item % e.heads, first = item / e.heads * rows;
      const int64_t in_group = head % e.group(), part = in_group / s.plan.heads;
      sums.assign(static_cast<size_t>(width), 0);
      for (int64_t row = first; row < first + rows; ++row) {
        const int64_t owner = (row * e.key_heads + head / e.group()) * s.plan.parts + part;
        for (int64_t chunk = 0; chunk < s.plan.chunks; ++chunk) {
          const Sum* from = s.distances_of(owner * s.plan.chunks + chunk, in_group % s.plan.heads);
          for (int64_t i = 0; i < entries; ++i) {
            const int64_t behind = std::clamp(i - entries / 2, -reach, reach);
            sums[static_cast<size_t>(reach - behind)] += static_cast<double>(from[i]);
          }
        }
      }
      std::copy(sums.begin(), sums.end(), to.data<Sum>() + item * width);
    };
  });
}

// Inputs: q, k, v, the output or none, its gradient, log-sum-exp, delta or none. Outputs: the
// gradients of q, k, v, and of the table by distance or none.
class BackwardKernel final : public Kernel {
 public:
  explicit BackwardKernel(const Parameters& parameters) : parameters_(parameters) {}
  std::string_view name() const override { return "scaled_dot_product_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const BlockGrads grads{outputs[0], outputs[1], outputs[2], outputs[3]};
    dispatch_inputs(inputs[0].dtype(), [&]<typename In>() {
      const Problem<In> problem(cx, inputs[0], inputs[1], inputs[2], parameters_);
      const Tensor d_out = with_tight_rows(cx, inputs[4]);
      const Tensor lse = as_contiguous(cx.pool, inputs[5]);
      const Tensor dots =
          inputs[6] ? as_contiguous(cx.pool, inputs[6]) : row_dots(cx, inputs[3], inputs[4]);
      const Sums<In> sums(problem, grads);
      share_items(cx.pool, sums.plan.items(), [&] { return Backward<In>(sums, d_out, lse, dots); });
      problem.report(3, 2);
      if (sums.plan.chunks > 1) add_chunks(sums);
      if (sums.plan.parts > 1) add_parts(sums);
      if (grads.distance_bias) add_distances(sums);
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).attention_backward(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4],
                                         inputs[5], inputs[6], parameters_, cx.repeats(),
                                         outputs[0], outputs[1], outputs[2]);
    if (!outputs[3]) return;
    cuda::backend(cx).attention_distance_gradient(inputs[0], inputs[1], inputs[2], inputs[4],
                                                  inputs[5], inputs[6], parameters_, outputs[3]);
  }

 private:
  const Parameters& parameters_;
};

}  // namespace

void backward_into(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                   const Tensor& output, const Tensor& d_output, const Tensor& log_sum_exp,
                   const Tensor& delta, const Parameters& parameters, const BlockGrads& grads) {
  check_call(q, k, v, parameters);
  BackwardKernel kernel(parameters);
  std::array outputs = {grads.q, grads.k, grads.v, grads.distance_bias};
  run_kernel(cx, kernel, std::array{q, k, v, output, d_output, log_sum_exp, delta}, outputs);
}

}  // namespace weft::attention
