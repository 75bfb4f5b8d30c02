// The rows whose terms of a norm's parameter gradients are summed one by one; the partial sums are
// merged by sum_middle(). The order follows from the rows and Context::block_count alone. Not for
// the ops' users.
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>

#include "kernels/autograd/context.h"

namespace weft::ops {

class RowPartials {
 public:
  RowPartials(const Context& cx, int64_t rows)
      : blocks_(std::max(1, cx.block_count)), in_block_(rows / blocks_) {
    WEFT_CHECK(rows % blocks_ == 0, "{} blocks of {} rows", blocks_, rows);
  }
  int64_t count() const { return blocks_ * of_block(); }
  // Those of a partial sum, one after the other.
  struct Rows {
    int64_t first, count;
  };
  Rows of(int64_t partial) const {
    const int64_t at = partial % of_block() * kRows;
    return {partial / of_block() * in_block_ + at, std::min(in_block_ - at, kRows)};
  }

 private:
  static constexpr int64_t kRows = 64;
  int64_t of_block() const { return (in_block_ + kRows - 1) / kRows; }

  const int64_t blocks_, in_block_;
};

}  // namespace weft::ops
