// Ops that arrange elements anew, beyond those of ops.h.
#pragma once

#include <span>

#include "kernels/autograd/op.h"

namespace weft::ops {

// ---- movement.cc
Tensor flip(Context& cx, const Tensor& x, int dim);  // the order of a dim reversed
// Element i goes to (i + shift) mod extent; any shift.
Tensor roll(Context& cx, const Tensor& x, int dim, int64_t shift);
Tensor stack(Context& cx, std::span<const Tensor> parts, int dim);  // along a new dim
Tensor expand(Context& cx, const Tensor& x, Shape shape);           // a view, numpy broadcasting
// The dim `times` in a row (0 1 0 1), and each element `times` in a row (0 0 1 1).
Tensor repeat(Context& cx, const Tensor& x, int dim, int64_t times);
Tensor repeat_interleave(Context& cx, const Tensor& x, int dim, int64_t times);

// A mask (uint8) of 1 where column <= row + diagonal.
Tensor triangular_mask(Context& cx, int64_t rows, int64_t columns, int64_t diagonal = 0);
// x [..., rows, columns] with zeros above (below) that diagonal.
Tensor lower_triangle(Context& cx, const Tensor& x, int64_t diagonal = 0);
Tensor upper_triangle(Context& cx, const Tensor& x, int64_t diagonal = 0);

}  // namespace weft::ops
