// Rows of a table that every replica has a part of, gathered ahead of the rest: those that the next
// forward pass looks up.
//
// Rows that follow each other in the table do so here, so each replica's part of them is in one
// piece, as its part of the bucket is.
//
// Thread safety: the rank's compute thread; the constructor is a collective over Axis::kReplica.
// Ownership: refers to the rank, shares the bucket's values. Memory: the rows once more.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "worker/optimizer/buckets.h"
#include "worker/parallel/rank.h"

namespace weft {

// Whether rows of the bucket go ahead: it is a table that tokens look up by their ids, and the
// rows of all replicas' tokens, [width] each, are at most a quarter of it. So what the forward pass
// waits for falls to a quarter at least, and what is sent grows by a quarter at most. looked_up:
// these tokens, at most; 0: unknown.
bool rows_go_ahead(const Bucket& bucket, int64_t looked_up, int64_t width);

class TableRows {
 public:
  // values: of the bucket, [its elements] in the memory of a CPU, of which this rank's part is
  // right. rows: ascending, each once, the same on every replica.
  TableRows(Rank& rank, const Bucket& bucket, const Tensor& values, int64_t width,
            std::span<const int64_t> rows);
  bool has(int64_t row) const { return std::binary_search(rows_.begin(), rows_.end(), row); }
  // They have come; and are where they belong.
  void wait() { pending_.wait(); }
  void finish();

 private:
  // Copies the rows from or to the bucket's values.
  void copy(bool from_values) const;
  // Where the element of the bucket, or the first one behind it, stands among the rows'.
  int64_t place_of(int64_t element) const;

  Rank& rank_;
  const Tensor values_;
  const int64_t width_;
  const std::vector<int64_t> rows_;
  Tensor gathered_;  // [rows * width]
  Pending pending_;
};

}  // namespace weft
