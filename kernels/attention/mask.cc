#include "kernels/attention/mask.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/rows.h"
#include "kernels/tensor/strided.h"

namespace weft::attention {
namespace {

Tensor checked(Context& cx, const Tensor& x, int64_t rows, int64_t extent, DType dtype,
               std::string_view what) {
  if (!x) return x;
  WEFT_CHECK((x.spec() == TensorSpec{Shape{rows, extent}, dtype}),
             "{}: {} {} where [{}, {}] {} is due", what, dtype_name(x.dtype()),
             x.shape().to_string(), rows, extent, dtype_name(dtype));
  return as_contiguous(cx.pool, x);
}

Tensor counting(Context& cx, int64_t rows, int64_t extent) {
  Tensor positions = Tensor::empty(cx.allocator, Shape{rows, extent}, DType::kI64);
  for (int64_t i = 0; i < rows * extent; ++i) positions.data<int64_t>()[i] = i % extent;
  return positions;
}

}  // namespace

Mask::Mask(Context& cx, const Visibility& visibility, int64_t rows, int64_t queries, int64_t keys)
    : causal_(visibility.causal), queries_(queries), keys_(keys) {
  if (causal_) {
    query_position_ = visibility.query_position ? checked(cx, visibility.query_position, rows,
                                                          queries, DType::kI64, "query_position")
                                                : counting(cx, rows, queries);
    key_position_ = visibility.key_position ? checked(cx, visibility.key_position, rows, keys,
                                                      DType::kI64, "key_position")
                                            : counting(cx, rows, keys);
  }
  key_valid_ = checked(cx, visibility.key_valid, rows, keys, DType::kU8, "key_valid");
  WEFT_CHECK(
      static_cast<bool>(visibility.query_document) == static_cast<bool>(visibility.key_document),
      "documents of queries and of keys come together");
  query_document_ =
      checked(cx, visibility.query_document, rows, queries, DType::kI64, "query_document");
  key_document_ = checked(cx, visibility.key_document, rows, keys, DType::kI64, "key_document");
}

Mask::Range Mask::range_of(const int64_t* values, int64_t begin, int64_t end) {
  Range range{std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
  for (int64_t i = begin; i < end; ++i) {
    range.least = std::min(range.least, values[i]);
    range.most = std::max(range.most, values[i]);
  }
  return range;
}

TileView Mask::view(const Tile& tile) const {
  bool all = true;
  if (causal_) {
    const Range query = range_of(query_position_.data<int64_t>() + tile.row * queries_, tile.query,
                                 tile.query + tile.queries);
    const Range key =
        range_of(key_position_.data<int64_t>() + tile.row * keys_, tile.key, tile.key + tile.keys);
    if (key.least > query.most) return TileView::kNone;
    all = key.most <= query.least;
  }
  if (key_valid_) {
    const uint8_t* valid = key_valid_.data<uint8_t>() + tile.row * keys_ + tile.key;
    const int64_t count = std::count_if(valid, valid + tile.keys, [](uint8_t v) { return v != 0; });
    if (count == 0) return TileView::kNone;
    all = all && count == tile.keys;
  }
  if (query_document_) {
    const Range query = range_of(query_document_.data<int64_t>() + tile.row * queries_, tile.query,
                                 tile.query + tile.queries);
    const Range key =
        range_of(key_document_.data<int64_t>() + tile.row * keys_, tile.key, tile.key + tile.keys);
    if (key.least > query.most || key.most < query.least) return TileView::kNone;
    all = all && key.least == key.most && query.least == query.most;
  }
  return all ? TileView::kAll : TileView::kSome;
}

Tile Mask::without_later_keys(Tile tile) const {
  if (!causal_) return tile;
  const int64_t* query = query_position_.data<int64_t>() + tile.row * queries_;
  const int64_t* key = key_position_.data<int64_t>() + tile.row * keys_ + tile.key;
  const int64_t most = range_of(query, tile.query, tile.query + tile.queries).most;
  while (tile.keys > 0 && key[tile.keys - 1] > most) --tile.keys;
  return tile;
}

template <typename T>
void Mask::hide(const Tile& tile, T* scores) const {
  const int64_t query0 = tile.row * queries_ + tile.query, key0 = tile.row * keys_ + tile.key;
  constexpr T kHidden = -std::numeric_limits<T>::infinity();
  for (int64_t i = 0; i < tile.queries; ++i) {
    T* row = scores + i * tile.keys;
    if (causal_) {
      const int64_t last = query_position_.data<int64_t>()[query0 + i];
      const int64_t* position = key_position_.data<int64_t>() + key0;
      for (int64_t j = 0; j < tile.keys; ++j) row[j] = position[j] <= last ? row[j] : kHidden;
    }
    if (key_valid_) {
      const uint8_t* valid = key_valid_.data<uint8_t>() + key0;
      for (int64_t j = 0; j < tile.keys; ++j) row[j] = valid[j] != 0 ? row[j] : kHidden;
    }
    if (query_document_) {
      const int64_t own = query_document_.data<int64_t>()[query0 + i];
      const int64_t* document = key_document_.data<int64_t>() + key0;
      for (int64_t j = 0; j < tile.keys; ++j) row[j] = document[j] == own ? row[j] : kHidden;
    }
  }
}
template void Mask::hide(const Tile&, float*) const;
template void Mask::hide(const Tile&, double*) const;

template <typename T>
void draw_kept(const WeightDropout& dropout, int64_t head, const Tile& tile, T* keep) {
  const T kept = static_cast<T>(1 / (1 - dropout.rate));
  const int64_t row = dropout.first_row + tile.row;
  const int64_t first = (row * dropout.heads + dropout.first_head + head) * dropout.queries;
  for (int64_t i = 0; i < tile.queries; ++i) {
    const int64_t query = first + dropout.first_query + tile.query + i;
    cpu::rows<T>().draw_kept(
        dropout.key.seed, dropout.key.stream,
        static_cast<uint64_t>(query * dropout.keys + dropout.first_key + tile.key),
        static_cast<float>(dropout.rate), kept, keep + i * tile.keys, tile.keys);
  }
}
template void draw_kept(const WeightDropout&, int64_t, const Tile&, float*);
template void draw_kept(const WeightDropout&, int64_t, const Tile&, double*);

}  // namespace weft::attention
