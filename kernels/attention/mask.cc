#include "kernels/attention/mask.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/cpu/rows.h"
#include "kernels/tensor/strided.h"

namespace weft::attention {
namespace {

constexpr int32_t kFar = 1 << 30;
constexpr int64_t kLanes = cpu::kTileLanes;

int64_t whole_tiles(int64_t extent) { return (extent + kLanes - 1) / kLanes * kLanes; }

Tensor stored(Context& cx, const Tensor& x) { return x ? as_contiguous(cx.pool, x) : x; }

int32_t window(int64_t width) {
  return width < 0 ? kFar : static_cast<int32_t>(std::min<int64_t>(width, kFar));
}

struct Least {
  int64_t value = std::numeric_limits<int64_t>::max();
  void see(const Tensor& x, int64_t row, int64_t extent) {
    const int64_t* from = x.data<int64_t>() + row * extent;
    for (int64_t i = 0; i < extent; ++i) value = std::min(value, from[i]);
  }
};

// to[i] := from[i] - least for the row.
void relative(const Tensor& x, int64_t row, int64_t extent, int64_t least, const char* what,
              int32_t* to) {
  const int64_t* from = x.data<int64_t>() + row * extent;
  for (int64_t i = 0; i < extent; ++i) {
    WEFT_CHECK(from[i] - least < kFar, "{} {} and {} in one row", what, least, from[i]);
    to[i] = static_cast<int32_t>(from[i] - least);
  }
}

// Tokens [at, at + result) of the block stand one behind the other in the whole, from `first` on.
int64_t run_of(const Tensor& index, int64_t first_token, int64_t at, int64_t end, int64_t& first) {
  first = first_token + at;
  if (!index) return end - at;
  const int64_t* tokens = index.data<int64_t>();
  first = tokens[at];
  int64_t count = 1;
  while (at + count < end && tokens[at + count] == first + count) ++count;
  return count;
}

}  // namespace

const int32_t* Mask::Values::at(int64_t row, int64_t index) const {
  return of.data<int32_t>() + row * row_stride + index;
}

Mask::Mask(Context& cx, const Visibility& visibility, bool positions, int64_t rows, int64_t heads,
           int64_t queries, int64_t keys)
    : heads_(heads),
      queries_(queries),
      keys_(keys),
      by_position_(visibility.causal || visibility.window_left >= 0 ||
                   visibility.window_right >= 0),
      left_(window(visibility.window_left)),
      right_(visibility.causal ? 0 : window(visibility.window_right)),
      tiles_(whole_tiles(queries) / kLanes) {
  if (by_position_ || positions) number(cx, visibility, rows);
  key_valid_ = stored(cx, visibility.key_valid);
  if (visibility.query_document) name_documents(cx, visibility, rows);
  mask_ = stored(cx, visibility.mask);
  find_spans(rows);
}

void Mask::number(Context& cx, const Visibility& visibility, int64_t rows) {
  const Tensor query = stored(cx, visibility.query_position);
  const Tensor key = stored(cx, visibility.key_position);
  const int64_t own_rows = query || key ? rows : 1;
  const auto make = [&](Values& values, int64_t extent) {
    values.extent = whole_tiles(extent);
    values.row_stride = own_rows == 1 ? 0 : values.extent;
    values.of = Tensor::zeros(cx.allocator, {own_rows, values.extent}, DType::kI32);
  };
  make(query_.position, queries_);
  make(key_.position, keys_);
  for (int64_t row = 0; row < own_rows; ++row) {
    Least least;
    if (query) least.see(query, row, queries_);
    if (key) least.see(key, row, keys_);
    if (!query || !key) least.value = std::min<int64_t>(least.value, 0);
    const auto fill = [&](const Tensor& from, const Values& values, int64_t extent,
                          const char* what) {
      int32_t* to = values.of.data<int32_t>() + row * values.extent;
      if (from) {
        relative(from, row, extent, least.value, what, to);
      } else {
        for (int64_t i = 0; i < extent; ++i) to[i] = static_cast<int32_t>(i - least.value);
      }
    };
    WEFT_CHECK(std::max(queries_, keys_) - least.value < kFar, "positions from {} on", least.value);
    fill(query, query_.position, queries_, "query_position");
    fill(key, key_.position, keys_, "key_position");
  }
}

void Mask::name_documents(Context& cx, const Visibility& visibility, int64_t rows) {
  const Tensor query = stored(cx, visibility.query_document);
  const Tensor key = stored(cx, visibility.key_document);
  const auto make = [&](Values& values, int64_t extent) {
    values.extent = values.row_stride = whole_tiles(extent);
    values.of = Tensor::zeros(cx.allocator, {rows, values.extent}, DType::kI32);
  };
  make(query_.document, queries_);
  make(key_.document, keys_);
  for (int64_t row = 0; row < rows; ++row) {
    Least least;
    least.see(query, row, queries_);
    least.see(key, row, keys_);
    relative(query, row, queries_, least.value, "query_document",
             query_.document.of.data<int32_t>() + row * query_.document.extent);
    relative(key, row, keys_, least.value, "key_document",
             key_.document.of.data<int32_t>() + row * key_.document.extent);
  }
}

Mask::Block Mask::block_of(const Side& side, int64_t row, int64_t begin, int64_t end) const {
  const auto range_of = [&](const Values& values) {
    if (!values) return Range{};
    const int32_t* from = values.at(row, 0);
    Range range{std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()};
    for (int64_t i = begin; i < end; ++i) {
      range.least = std::min(range.least, from[i]);
      range.most = std::max(range.most, from[i]);
    }
    return range;
  };
  return {range_of(side.position), range_of(side.document)};
}

Mask::Block Mask::keys_of(int64_t row, int64_t begin, int64_t end) const {
  Block block = block_of(key_, row, begin, end);
  if (key_valid_) {
    const uint8_t* valid = key_valid_.data<uint8_t>() + row * keys_;
    const int64_t hidden = std::count(valid + begin, valid + end, uint8_t{0});
    block.some_valid = hidden < end - begin;
    block.all_valid = hidden == 0;
  }
  return block;
}

TileView Mask::judge(const Block& queries, const Block& keys) const {
  bool all = keys.all_valid;
  if (!keys.some_valid) return TileView::kNone;
  if (by_position_) {
    const Range query = queries.position, key = keys.position;
    if (key.least - right_ > query.most || key.most + left_ < query.least) return TileView::kNone;
    all = all && key.most - right_ <= query.least && key.least + left_ >= query.most;
  }
  if (query_.document) {
    const Range query = queries.document, key = keys.document;
    if (key.least > query.most || key.most < query.least) return TileView::kNone;
    all = all && key.least == key.most && query.least == query.most;
  }
  return all ? TileView::kAll : TileView::kSome;
}

// By whole tiles of keys from both ends, then key by key.
void Mask::find_spans(int64_t rows) {
  spans_differ_ = query_.position.row_stride != 0 || key_valid_ || query_.document;
  const int64_t span_rows = spans_differ_ ? rows : 1, columns = whole_tiles(keys_) / kLanes;
  spans_.assign(static_cast<size_t>(span_rows * tiles_), {0, keys_});
  if (!by_position_ && !key_valid_ && !query_.document) return;
  std::vector<Block> blocks(static_cast<size_t>(columns));
  for (int64_t row = 0; row < span_rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      blocks[static_cast<size_t>(column)] =
          keys_of(row, column * kLanes, std::min(keys_, (column + 1) * kLanes));
    }
    for (int64_t tile = 0; tile < tiles_; ++tile) {
      const Block queries =
          block_of(query_, row, tile * kLanes, std::min(queries_, (tile + 1) * kLanes));
      const auto sees_block = [&](int64_t column) {
        return judge(queries, blocks[static_cast<size_t>(column)]) != TileView::kNone;
      };
      const auto sees = [&](int64_t key) {
        return judge(queries, keys_of(row, key, key + 1)) != TileView::kNone;
      };
      int64_t first = 0, last = columns;
      while (first < last && !sees_block(first)) ++first;
      while (first < last && !sees_block(last - 1)) --last;
      Span& span = spans_[static_cast<size_t>(row * tiles_ + tile)];
      span = {first * kLanes, std::max(first * kLanes, std::min(keys_, last * kLanes))};
      while (span.begin < span.end && !sees(span.begin)) ++span.begin;
      while (span.begin < span.end && !sees(span.end - 1)) --span.end;
    }
  }
}

Span Mask::keys_seen(int64_t row, int64_t query) const {
  return spans_[static_cast<size_t>((spans_differ_ ? row : 0) * tiles_ + query / kLanes)];
}

TileView Mask::view(const Tile& tile) const {
  const TileView rules = judge(block_of(query_, tile.row, tile.query, tile.query + tile.queries),
                               keys_of(tile.row, tile.key, tile.key + tile.keys));
  if (rules == TileView::kNone || !mask_) return rules;
  const TileView drawn = judge_arbitrary(tile);
  if (drawn == TileView::kNone) return drawn;
  return rules == TileView::kAll ? drawn : rules;
}

const uint8_t* Mask::mask_row(const Tile& tile, int64_t query) const {
  const int64_t row = mask_.dim(0) == 1 ? 0 : tile.row, head = mask_.dim(1) == 1 ? 0 : tile.head;
  const int64_t at = ((row * mask_.dim(1) + head) * queries_ + tile.query + query) * keys_;
  return mask_.data<uint8_t>() + at + tile.key;
}

TileView Mask::judge_arbitrary(const Tile& tile) const {
  bool some = false, all = true;
  for (int64_t q = 0; q < tile.queries && (all || !some); ++q) {
    const uint8_t* from = mask_row(tile, q);
    const int64_t count = std::count(from, from + tile.keys, uint8_t{0});
    some = some || count < tile.keys;
    all = all && count == 0;
  }
  if (!some) return TileView::kNone;
  return all ? TileView::kAll : TileView::kSome;
}

const int32_t* Mask::key_position(const Tile& tile) const {
  return key_.position ? key_.position.at(tile.row, tile.key) : nullptr;
}
const int32_t* Mask::query_position(const Tile& tile) const {
  return query_.position ? query_.position.at(tile.row, tile.query) : nullptr;
}

cpu::HideTerms Mask::terms(const Tile& tile) const {
  cpu::HideTerms terms;
  if (by_position_) {
    terms.query_position = query_position(tile);
    terms.key_position = key_position(tile);
    terms.left = left_;
    terms.right = right_;
  }
  if (key_valid_) terms.valid = key_valid_.data<uint8_t>() + tile.row * keys_ + tile.key;
  if (query_.document) {
    terms.query_document = query_.document.at(tile.row, tile.query);
    terms.key_document = key_.document.at(tile.row, tile.key);
  }
  return terms;
}

template <typename T>
void Mask::hide_arbitrary(const Tile& tile, T* to) const {
  constexpr T kHidden = -std::numeric_limits<T>::infinity();
  for (int64_t q = 0; q < tile.queries; ++q, to += tile.keys) {
    const uint8_t* from = mask_row(tile, q);
    for (int64_t c = 0; c < tile.keys; ++c) to[c] = from[c] != 0 ? to[c] : kHidden;
  }
}
template void Mask::hide_arbitrary(const Tile&, float*) const;
template void Mask::hide_arbitrary(const Tile&, double*) const;

template <typename T>
void draw_kept(const WeightDropout& dropout, const Tile& tile, T* keep) {
  const DropRule rule(dropout.rate);
  const int64_t row = dropout.first_row + tile.row;
  const int64_t first = (row * dropout.heads + dropout.first_head + tile.head) * dropout.queries;
  const int64_t end = tile.key + tile.keys;
  int64_t query = 0, key = 0;
  for (int64_t q = 0; q < tile.queries; ++q) {
    run_of(dropout.query_index, dropout.first_query, tile.query + q, tile.query + q + 1, query);
    for (int64_t at = tile.key; at < end;) {
      const int64_t count = run_of(dropout.key_index, dropout.first_key, at, end, key);
      cpu::rows<T>().draw_kept(dropout.key.seed, dropout.key.stream,
                               static_cast<uint64_t>((first + query) * dropout.keys + key),
                               rule.dropped, static_cast<T>(rule.factor),
                               keep + q * tile.keys + at - tile.key, count);
      at += count;
    }
  }
}
template void draw_kept(const WeightDropout&, const Tile&, float*);
template void draw_kept(const WeightDropout&, const Tile&, double*);

}  // namespace weft::attention
