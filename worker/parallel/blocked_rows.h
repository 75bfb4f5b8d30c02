// What blocked losses compute row by row, on either device. Of each block of the vocabulary a row
// has its largest logit and the sum of exponentials relative to that; two blocks merge into the
// larger and the sums, each scaled to it (Milakov and Gimelshein 2018).
//
// Thread safety and ownership: as collective_ops.h. Nothing is recorded. fp32.
#pragma once

#include <vector>

#include "kernels/autograd/context.h"
#include "kernels/ops/ops.h"

namespace weft::parallel {

// What a node of the vocabulary's tree knows of each row, and, as ids do not fit into floats, where
// the largest logit is. [rows] each.
struct Terms {
  Tensor floats;  // [3, rows]: the largest logit, the sum, the label's logit (0: it is not here)
  Tensor best;    // int64; an empty handle where nobody asks

  // Of one of the three, rows [first, first + length).
  Tensor part(int64_t which, int64_t first, int64_t length) const;
  Tensor row(int64_t which) const { return part(which, 0, floats.dim(1)); }
};
Terms empty_terms(Context& cx, int64_t rows, bool best);

// Which logits a matrix [n, ids] holds: of rows first_row, ... and ids first_id, ...
struct LogitRows {
  const Tensor& labels;  // of all rows
  const ops::TokenLoss& loss;
  int64_t first_row = 0, first_id = 0;
};

// The terms of these rows.
void find_row_terms(Context& cx, const Tensor& logits, const LogitRows& which, const Terms& terms);
void merge(Context& cx, const Terms& into, const Terms& from);
// The logarithm of each row's sum of exponentials, which to_gradients() reads on a GPU; an empty
// handle on the CPU.
Tensor log_sums(Context& cx, const Terms& terms);
// Logits become loss.seed times the gradient of their row's loss; terms: of the whole vocabulary.
void to_gradients(Context& cx, const Tensor& logits, const LogitRows& which, const Terms& terms,
                  const Tensor& log_sums);
// On the host; 0 where the label is ignored.
std::vector<double> row_losses(const Terms& terms, const Tensor& labels,
                               const ops::TokenLoss& loss);

}  // namespace weft::parallel
