// Visibility and weight dropout of one tile of scores; internal to kernels/attention.
//
// Thread safety: constant after construction; everything from any thread. Ownership: holds copies
// or handles of what it was made from.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/cpu/tiles.h"

namespace weft::attention {

// A rectangle of the score matrix: queries [query, query + queries) by keys [key, key + keys).
// query is a multiple of cpu::kTileLanes, queries at most that.
struct Tile {
  int64_t row = 0, head = 0;  // batch row, head of the queries
  int64_t query = 0, queries = 0;
  int64_t key = 0, keys = 0;
};

enum class TileView { kNone, kSome, kAll };

// [begin, end)
struct Span {
  int64_t begin = 0, end = 0;
  bool meets(int64_t from, int64_t to) const { return begin < to && from < end; }
};

class Mask {
 public:
  // positions: keep them also where no rule of `visibility` asks for them.
  Mask(Context& cx, const Visibility& visibility, bool positions, int64_t rows, int64_t heads,
       int64_t queries, int64_t keys);

  // All keys that a query of this tile may see lie in this span; it is as short as positions,
  // documents and padding tell.
  Span keys_seen(int64_t row, int64_t query) const;
  // What of the tile is visible: kSome may still be all.
  TileView view(const Tile& tile) const;
  // The rules but the arbitrary mask, for cpu::TileKernels::hide.
  cpu::HideTerms terms(const Tile& tile) const;
  // [K] and [Q] of the tile, relative to a position of the row's own.
  const int32_t* key_position(const Tile& tile) const;
  const int32_t* query_position(const Tile& tile) const;

  bool arbitrary() const { return static_cast<bool>(mask_); }
  // to[q, c] := visible ? to[q, c] : -infinity by the arbitrary mask; rows of tile.keys elements.
  template <typename T>
  void hide_arbitrary(const Tile& tile, T* to) const;

 private:
  // int32 values of a row of int64 ones; one row for all where the values were absent.
  struct Values {
    Tensor of;
    int64_t row_stride = 0, extent = 0;
    const int32_t* at(int64_t row, int64_t index) const;
    explicit operator bool() const { return static_cast<bool>(of); }
  };
  struct Range {
    int32_t least = 0, most = 0;
  };
  struct Side {  // queries or keys
    Values position, document;
  };
  struct Block {  // of queries or keys
    Range position, document;
    bool some_valid = true, all_valid = true;  // of keys
  };

  void number(Context& cx, const Visibility& visibility, int64_t rows);
  void name_documents(Context& cx, const Visibility& visibility, int64_t rows);
  void find_spans(int64_t rows);
  Block block_of(const Side& side, int64_t row, int64_t begin, int64_t end) const;
  Block keys_of(int64_t row, int64_t begin, int64_t end) const;
  // What queries see of keys by all rules but the arbitrary mask, judged by their ranges.
  TileView judge(const Block& queries, const Block& keys) const;
  TileView judge_arbitrary(const Tile& tile) const;
  const uint8_t* mask_row(const Tile& tile, int64_t query) const;

  const int64_t heads_, queries_, keys_;
  bool by_position_ = false;
  int32_t left_ = 0, right_ = 0;
  Side query_, key_;
  Tensor key_valid_, mask_;
  int64_t tiles_ = 0;          // of queries
  std::vector<Span> spans_;    // [rows or 1, tiles_]
  bool spans_differ_ = false;  // from row to row
};

// keep[queries, keys] := the factor of DropRule where the weight stays, else 0.
template <typename T>
void draw_kept(const WeightDropout& dropout, const Tile& tile, T* keep);

}  // namespace weft::attention
