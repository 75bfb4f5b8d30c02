#include "worker/parallel/blocked_magnitudes.h"

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
#include "worker/parallel/blocked.h"
#include "worker/parallel/cell_products.h"
#include "worker/parallel/tree_sum.h"

namespace weft::parallel {
namespace {

using cpu::Extent;
using cpu::parts_of;
using ops::WeightLayout;
using Extents = std::vector<Extent>;

// Rows of a weight at once, as it is stored: what stays in a core's cache; on a GPU what fills it.
constexpr int64_t kPieceRows = 64, kGpuPieceRows = 1024;

Tensor rows_from(const Tensor& x, const Extent& rows) {
  const int64_t width = x.dim(1);
  return x.view({rows.length, width}, std::array<int64_t, 2>{width, 1}, rows.start * width);
}

Tensor single(Context& cx, const Tensor& x) {
  return cpu::converted(cx.pool, as_contiguous(cx.pool, x), DType::kF32);
}

// x [n, m] over its rows, cut into so many blocks, -> [m].
Tensor sum_of_rows(Context& cx, Tensor x, int blocks) {
  Context in_blocks = cx;
  in_blocks.block_count = blocks;
  // One column alone would be summed in another order than among others: it comes twice.
  const bool alone = x.dim(1) == 1;
  if (alone) x = x.view({x.dim(0), 2}, std::array<int64_t, 2>{1, 0}, 0);
  const Tensor sums = ops::sum(in_blocks, x, 0);
  return alone ? sums.view({1}, std::array<int64_t, 1>{1}, 0) : sums;
}

// Squares of one matrix W + scaling * B A, a piece of its rows at a time.
class OutputNorms {
 public:
  OutputNorms(const TensorAxis& axis, Side side, const LowRank& map, const Magnitude& magnitude)
      : axis_(axis), side_(side), map_(map), magnitude_(magnitude) {}

  // Of each output, over this rank's inputs.
  Tensor squares(Context& cx) const {
    const Tensor weight = as_contiguous(cx.pool, ops::matrix_of(cx, magnitude_.weight));
    const Tensor a = single(cx, map_.a), b = ops::scale(cx, single(cx, map_.b), map_.scaling);
    // In the weight's layout the matrix is left right.
    const Tensor left = out_in() ? b : ops::contiguous(cx, ops::permute(cx, a, std::array{1, 0}));
    const Operand right(out_in() ? a : b, !out_in());
    const CellLimits limits = cell_limits(cx);
    const int64_t at_once = cx.device().is_cpu() ? kPieceRows : kGpuPieceRows;
    const bool rows_are_shared = out_in() == (side_ == Side::kColumn);
    const Extents rows = rows_are_shared ? parts_of(shared(weight.dim(0)), at_once)
                                         : parts_of(Extents{{0, weight.dim(0)}}, at_once);
    const Extents columns = rows_are_shared ? parts_of(Extents{{0, weight.dim(1)}}, limits.whole)
                                            : parts_of(shared(weight.dim(1)), limits.features);
    // Of inputs that the axis shares out this rank's blocks, else all as one.
    const int blocks = side_ == Side::kRow ? axis_.feature_blocks() : 1;
    std::vector<Tensor> sums;
    for (const Extent& some : rows) {
      const Tensor piece = clone(cx.pool, single(cx, rows_from(weight, some)));
      cell_products(cx, {{{0, some.length}}, columns, {{{0, a.dim(0)}}}}, rows_from(left, some),
                    right, piece, /*fresh=*/false);
      const Tensor squared = ops::square(cx, piece);
      sums.push_back(out_in() ? sum_of_columns(cx, squared, blocks) : sum_of_rows(cx, squared, 1));
    }
    if (out_in()) return ops::concat(cx, sums, 0);
    const int64_t count = std::ssize(sums), width = sums[0].dim(0);
    return sum_of_rows(cx, ops::reshape(cx, ops::concat(cx, sums, 0), {count, width}), blocks);
  }

 private:
  bool out_in() const { return magnitude_.layout == WeightLayout::kOutIn; }
  // This rank's features that the axis shares out, by blocks.
  Extents shared(int64_t features) const {
    const Held& held = map_.held;
    const int64_t own = held.own.length > 0 ? held.own.length : features;
    const int64_t cell = held.cell > 0 ? held.cell : own / map_.parts / axis_.feature_blocks();
    const int64_t part = features / map_.parts;
    Extents all;
    for (int64_t at = 0; at < map_.parts; ++at) {
      for (const Extent& block : cpu::equal_blocks(part, part / cell)) {
        all.push_back({at * part + block.start, block.length});
      }
    }
    return all;
  }
  static Tensor sum_of_columns(Context& cx, const Tensor& x, int blocks) {
    Context in_blocks = cx;
    in_blocks.block_count = blocks;
    return ops::sum(in_blocks, x, 1);
  }

  const TensorAxis& axis_;
  const Side side_;
  const LowRank& map_;
  const Magnitude& magnitude_;
};

// Inputs: y, base, values.
class Rescaled final : public ops::ForwardOp {
 public:
  Rescaled(int blocks, Tensor norms) : blocks_(blocks), norms_(std::move(norms)) {}
  std::string_view name() const override { return "blocked_rescaled"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool takes_weights_in_single() const override { return true; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    return {ops::add(cx, inputs[0], product(cx, inputs[1], inputs[2]))};
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    for (const Tensor& input : inputs) wanted_.push_back(input.requires_grad());
    return {wanted_[2] ? inputs[1] : Tensor(), inputs[2]};
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads(3);
    const Tensor& dy = output_grads[0];
    if (wanted_[0]) grads[0] = dy;
    if (wanted_[1]) grads[1] = product(cx, dy, saved[1]);
    if (wanted_[2]) grads[2] = gradient(cx, ops::as_rows(cx, saved[0]), ops::as_rows(cx, dy));
    return grads;
  }

 private:
  // x (values / norms - 1), the factor rounded to x's type.
  Tensor product(Context& cx, const Tensor& x, const Tensor& values) const {
    const Tensor one = Tensor::full(cx.allocator, {1}, 1, norms_.dtype());
    const Tensor excess = ops::subtract(cx, ops::divide(cx, values, norms_), one);
    return ops::multiply(cx, x, ops::cast(cx, excess, x.dtype()));
  }

  // Of the values, a block of tokens at a time.
  Tensor gradient(Context& cx, const Tensor& base, const Tensor& dy) const {
    std::vector<Tensor> terms;
    for (const Extent& block : cpu::equal_blocks(base.dim(0), blocks_)) {
      const Tensor of_block =
          ops::multiply(cx, single(cx, rows_from(base, block)), single(cx, rows_from(dy, block)));
      terms.push_back(ops::divide(cx, sum_of_rows(cx, of_block, 1), norms_));
    }
    merge_tree(std::ssize(terms), [&](int64_t into, int64_t from) {
      add_into(cx.pool, terms[static_cast<size_t>(from)], terms[static_cast<size_t>(into)]);
    });
    return terms[0];
  }

  const int blocks_;
  const Tensor norms_;
  std::vector<bool> wanted_;
};

}  // namespace

Tensor blocked_norms(Context& cx, const TensorAxis& axis, Side side, const LowRank& map,
                     const Magnitude& magnitude) {
  const NoGrad constant(cx);
  const Tensor squares = OutputNorms(axis, side, map, magnitude).squares(cx);
  return ops::sqrt(cx, side == Side::kRow ? tree_sum(cx, axis.comm, squares) : squares);
}

Tensor blocked_rescaled(Context& cx, const TensorAxis& axis, Side side, const Tensor& y,
                        const Tensor& base, const Tensor& values, const Tensor& norms) {
  const int blocks = side == Side::kColumn ? axis.token_blocks() : axis.own_blocks();
  return ops::run<Rescaled>(cx, {y, base, values}, blocks, norms);
}

}  // namespace weft::parallel
