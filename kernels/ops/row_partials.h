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
  // f(row, count) for those of a partial sum, in runs of at most kAtOnce.
  template <typename F>
  void each_run(int64_t partial, F&& f) const {
    const int64_t first = partial % of_block() * kRows;
    const int64_t start = partial / of_block() * in_block_;
    const int64_t end = start + std::min(in_block_, first + kRows);
    for (int64_t row = start + first; row < end; row += kAtOnce) {
      f(row, std::min(kAtOnce, end - row));
    }
  }
  // Rows whose terms are added while a place of the sum is in a register.
  static constexpr int64_t kAtOnce = 2;

 private:
  static constexpr int64_t kRows = 64;
  int64_t of_block() const { return (in_block_ + kRows - 1) / kRows; }

  const int64_t blocks_, in_block_;
};

}  // namespace weft::ops
