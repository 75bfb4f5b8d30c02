// Ops that pick elements by number. Indices are int64; one out of range is a Status (field "index")
// that names the op, the value and the rule.
#pragma once

#include <span>

#include "kernels/autograd/op.h"

namespace weft::ops {

// ---- gather.cc
// out[i][j][k] = x[i][index[i][j][k]][k] for dim 1; index has x's dims, each extent but that of
// `dim` at most x's.
Tensor gather(Context& cx, const Tensor& x, int dim, const Tensor& index);
// x with x[i][index[i][j][k]][k] += source[i][j][k] for dim 1; index and source of one shape.
// Repeated places are added in the order of `source`.
Tensor scatter_add(Context& cx, const Tensor& x, int dim, const Tensor& index,
                   const Tensor& source);
// Whole slices: out[.., i, ..] = x[.., index[i], ..]; index [n].
Tensor index_select(Context& cx, const Tensor& x, int dim, const Tensor& index);
// x with x[.., index[i], ..] += source[.., i, ..], in the order of i.
Tensor index_add(Context& cx, const Tensor& x, int dim, const Tensor& index, const Tensor& source);
// 1 at the id's place of the new last dim of extent `classes`, else 0; no gradient.
Tensor one_hot(Context& cx, const Tensor& ids, int64_t classes, DType dtype = DType::kF32);

// ---- order (sort.cc): along `dim`, stable; NaN counts as the largest
struct Sorted {
  Tensor values, indices;  // as x; where each value came from
};
Sorted sort(Context& cx, const Tensor& x, int dim, bool descending = false);
Tensor argsort(Context& cx, const Tensor& x, int dim, bool descending = false);  // no gradient
// The k largest (or smallest) of each row, sorted; of equal ones the first comes first.
Sorted top_k(Context& cx, const Tensor& x, int64_t k, int dim, bool largest = true);

}  // namespace weft::ops
