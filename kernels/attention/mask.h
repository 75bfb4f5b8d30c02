// Visibility and weight dropout of one tile of scores; internal to kernels/attention.
//
// Thread safety: constant after construction; apply and keep from any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention/attention.h"

namespace weft::attention {

// A rectangle of the score matrix: queries [query, query + queries) by keys [key, key + keys).
struct Tile {
  int64_t row = 0;  // batch row
  int64_t query = 0, queries = 0;
  int64_t key = 0, keys = 0;
};

enum class TileView { kNone, kSome, kAll };

class Mask {
 public:
  Mask(Context& cx, const Visibility& visibility, int64_t rows, int64_t queries, int64_t keys);

  // What of the tile is visible, judged by the range of its positions: kSome may still be all.
  TileView view(const Tile& tile) const;
  // The tile without the last keys that come after every one of its queries.
  Tile without_later_keys(Tile tile) const;
  // Sets the invisible scores [queries, keys] to -infinity.
  template <typename T>
  void hide(const Tile& tile, T* scores) const;

 private:
  struct Range {
    int64_t least = 0, most = 0;
  };
  static Range range_of(const int64_t* values, int64_t begin, int64_t end);

  const bool causal_;
  const int64_t queries_, keys_;
  Tensor query_position_, key_position_, key_valid_, query_document_, key_document_;
};

// keep[queries, keys] := 1 / (1 - rate) with probability 1 - rate, else 0.
template <typename T>
void draw_kept(const WeightDropout& dropout, int64_t head, const Tile& tile, T* keep);

}  // namespace weft::attention
