// What several ops share; not for their users.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/autograd/op.h"
#include "kernels/cpu/gemm.h"
#include "kernels/tensor/dispatch.h"
#include "kernels/tensor/strided.h"

namespace weft::ops {

enum class Arithmetic { kAdd, kSubtract, kMultiply, kDivide };

template <typename T, typename... Args>
Tensor run(Context& cx, std::vector<Tensor> inputs, Args&&... args) {
  return apply_one(cx, std::make_unique<T>(std::forward<Args>(args)...), std::move(inputs));
}

// An op whose shape is told by forward() and which has no kernel of its own.
class ForwardOp : public Op {
 public:
  std::vector<TensorSpec> shape_rule(std::span<const Tensor>) const override { return {}; }
  void cpu(Context&, std::span<const Tensor>, std::span<Tensor>) override {
    WEFT_CHECK(false, "{} computes in forward()", name());
  }
};

int positive_dim(int dim, const Shape& shape);
Shape broadcast_shape(const Shape& a, const Shape& b);
// Strides with which x is walked as `shape`: 0 along broadcast dims.
Strides broadcast_strides(const Tensor& x, const Shape& shape);
// Sums `gradient` over the dims along which `shape` was broadcast; a half type's sum is fp32.
Tensor reduce_to(Context& cx, const Tensor& gradient, const Shape& shape);

// A contiguous tensor as [outer, extent(dim), inner].
struct Split {
  int64_t outer = 1, extent = 1, inner = 1;
};
Split split_at(const Shape& shape, int dim);

// Sum over the middle of contiguous x [outer, extent, inner] -> [outer, inner], in a tree whose
// form depends on extent (and block_count) only; times `factor`.
void sum_middle(Context& cx, const Tensor& x, const Split& split, double factor, const Tensor& out);

// The product without the tape: a [..., M, K], b [..., K, N].
Tensor matmul_values(Context& cx, const Tensor& a, const Tensor& b);
// dtype: the inputs' or, of bf16, also F32.
Tensor matmul_values(Context& cx, const Tensor& a, const Tensor& b, DType dtype);
// The same for matrices into out [M, N], contiguous; `done` follows each tile.
void product_into(Context& cx, const Tensor& a, const Tensor& b, const Tensor& out,
                  const cpu::TileFunction& done = {});
// The same of bf16, tile by tile in fp32.
void tiles_of_product(Context& cx, const Tensor& a, const Tensor& b,
                      const cpu::TakeTile<bfloat16>& take);
// x with its last two dims swapped; a view without the tape.
Tensor transposed_view(const Tensor& x);

// Rows of the table without the tape, and the gradient of it: sums over the tokens, which honour
// block_count.
Tensor embedding_values(Context& cx, const Tensor& ids, const Tensor& table, int64_t first_id);
// Adds the rows of a table's gradient to its elements [start, start + length), contiguous,
// [length].
void add_rows(Context& cx, const RowGradient& rows, int64_t start, Tensor elements);
Tensor embedding_gradient(Context& cx, const Tensor& ids, const Tensor& dy, int64_t first_id,
                          const TensorSpec& gradient, int64_t padding_id = -1);

// Zeros of the shape of `like` with `source` at the places along dim that `index` names, each at
// most once; without the tape.
Tensor scattered(Context& cx, const TensorSpec& like, int dim, const Tensor& index,
                 const Tensor& source);

// The number of rows of the last dim: the product of all others.
int64_t row_count(const Shape& shape);
// Contiguous x with another shape of as many elements; a view without the tape.
Tensor shaped(const Tensor& x, const Shape& shape);
// x as one matrix [rows, last extent]; contiguous, without the tape.
Tensor as_rows(Context& cx, const Tensor& x);

}  // namespace weft::ops
