// Features times gamma. Of heads, which all have the same, its gradient is a sum over heads, too,
// of which a rank of the tensor axis has some: of each block of tokens first those, in the tree
// over the blocks of heads, part_of() them, in each by halves; then the axis' ranks. Of heads that
// neighbours have, the first one's count.
#include <array>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/ops/common.h"
#include "kernels/tensor/strided.h"
#include "worker/parallel/blocked.h"
#include "worker/parallel/tree_sum.h"

namespace weft::parallel {
namespace {

// x [m, n, k] over its middle, halves first, so that a rank's share of n is a node of the tree over
// all: -> [m, k].
Tensor summed_by_halves(Context& cx, const Tensor& x, int64_t first, int64_t last) {
  if (last - first == 1) {
    return ops::contiguous(cx,
                           ops::reshape(cx, ops::slice(cx, x, 1, first, 1), {x.dim(0), x.dim(2)}));
  }
  const int64_t middle = first + (last - first) / 2;
  const Tensor before = summed_by_halves(cx, x, first, middle);
  return ops::add(cx, before, summed_by_halves(cx, x, middle, last));
}

// Inputs: x, gamma.
class Scale final : public ops::ForwardOp {
 public:
  Scale(const TensorAxis& axis, int64_t heads) : axis_(axis), heads_(heads) {}
  std::string_view name() const override { return "blocked_scale"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool takes_weights_in_single() const override { return true; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    return {product(cx, inputs[0], inputs[1])};
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    x_wanted_ = inputs[0].requires_grad();
    gamma_wanted_ = inputs[1].requires_grad();
    return {gamma_wanted_ ? inputs[0] : Tensor(), inputs[1]};
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads(2);
    if (x_wanted_) grads[0] = product(cx, output_grads[0], saved[1]);
    if (gamma_wanted_) grads[1] = gamma_gradient(cx, saved[0], output_grads[0]);
    return grads;
  }

 private:
  static Tensor single(Context& cx, const Tensor& x) {
    return cpu::converted(cx.pool, as_contiguous(cx.pool, x), DType::kF32);
  }
  static Tensor product(Context& cx, const Tensor& x, const Tensor& gamma) {
    const Tensor y = ops::multiply(cx, single(cx, x), single(cx, gamma));
    return cpu::converted(cx.pool, y, x.dtype());
  }

  Tensor gamma_gradient(Context& cx, const Tensor& x, const Tensor& dy) const {
    const int64_t heads = x.shape()[-2], features = x.shape()[-1], blocks = axis_.token_blocks();
    const Tensor terms = ops::multiply(cx, single(cx, x), single(cx, dy));
    const int64_t tokens = terms.elements() / (heads * features);
    Context in_order = cx;  // of the tokens of a block, as their number alone says
    in_order.block_count = 1;
    const Tensor of_blocks =
        ops::sum(in_order, ops::reshape(cx, terms, {blocks, tokens / blocks, heads * features}), 1);
    const Tensor of_heads = counted_sum(cx, ops::reshape(cx, of_blocks, {blocks, heads, features}));
    std::vector<char> counts;
    for (int rank = 0; rank < axis_.comm.size(); ++rank) {
      counts.push_back(part_of(heads_, axis_.comm.size(), rank).length > 0 ? 1 : 0);
    }
    const Tensor own = tree_scatter(cx, axis_.comm, of_heads, counts);
    const Tensor all =
        summed_by_halves(cx, ops::reshape(cx, own, {1, own.dim(0), features}), 0, own.dim(0));
    return ops::reshape(cx, all, {features});
  }

  // x [m, this rank's heads, D] over those of them that count: -> [m, D]; zeros of none.
  Tensor counted_sum(Context& cx, const Tensor& x) const {
    const int ranks = axis_.comm.size(), own_blocks = axis_.feature_blocks();
    const int64_t first = heads_ * axis_.comm.rank() / ranks;  // that this rank has
    std::vector<Tensor> sums;
    std::vector<char> present;
    for (int block = 0; block < own_blocks; ++block) {
      const Part part = part_of(heads_, axis_.blocks, axis_.comm.rank() * own_blocks + block);
      const int64_t start = part.start - first;
      WEFT_CHECK(start + part.length <= x.dim(1), "{} of {} heads here", start, x.dim(1));
      sums.push_back(part.length > 0 ? summed_by_halves(cx, x, start, start + part.length)
                                     : Tensor());
      present.push_back(part.length > 0 ? 1 : 0);
    }
    const auto at = [&](int64_t node) -> Tensor& { return sums[static_cast<size_t>(node)]; };
    const int64_t sum = merge_tree(
        present, [&](int64_t into, int64_t from) { at(into) = ops::add(cx, at(into), at(from)); });
    return sum >= 0 ? at(sum) : Tensor::zeros(cx.allocator, {x.dim(0), x.dim(2)});
  }

  const TensorAxis axis_;
  const int64_t heads_;  // of all ranks
  bool x_wanted_ = false, gamma_wanted_ = false;
};

// Inputs: x, gamma, beta.
class Affine final : public ops::ForwardOp {
 public:
  explicit Affine(const TensorAxis& axis) : axis_(axis) {}
  std::string_view name() const override { return "blocked_affine"; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    return {ops::add(cx, ops::multiply(cx, inputs[0], inputs[1]), inputs[2])};
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs[0], inputs[1]};
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor& dy = output_grads[0];
    Context in_blocks = cx;
    in_blocks.block_count = axis_.token_blocks();
    return {ops::multiply(cx, dy, saved[1]),
            ops::sum(in_blocks, ops::multiply(cx, saved[0], dy), 0), ops::sum(in_blocks, dy, 0)};
  }

 private:
  const TensorAxis axis_;
};

}  // namespace

Tensor blocked_affine(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& gamma,
                      const Tensor& beta) {
  return ops::run<Affine>(cx, {x, gamma, beta}, axis);
}

Tensor blocked_scale(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& gamma,
                     int64_t heads) {
  return ops::run<Scale>(cx, {x, gamma}, axis, heads);
}

}  // namespace weft::parallel
