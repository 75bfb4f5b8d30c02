#include "worker/parallel/low_rank.h"

namespace weft::parallel {
namespace {

using ops::WeightLayout;

// y + scaling * B inner, where the product is made. inner is the smallest to scale.
Tensor added(Context& cx, const Tensor& inner, const Tensor& b, const Tensor& y) {
  return ops::linear(cx, inner, b, Tensor(), WeightLayout::kOutIn, std::nullopt, y);
}

}  // namespace

Tensor add_to_column(Context& cx, const TensorAxis& axis, const Tensor& x, const LowRank& map,
                     const Tensor& y) {
  WEFT_CHECK(axis.blocks == 0, "an adapter over {} blocks", axis.blocks);
  const Tensor inner =
      ops::linear(cx, x, replicated(cx, axis, map.a), Tensor(), WeightLayout::kOutIn);
  return added(cx, column_input(cx, axis, ops::scale(cx, inner, map.scaling)), map.b, y);
}

Tensor add_to_row(Context& cx, const TensorAxis& axis, const Tensor& x, const LowRank& map,
                  const Tensor& y) {
  WEFT_CHECK(axis.blocks == 0, "an adapter over {} blocks", axis.blocks);
  const Tensor inner = row_linear(cx, axis, x, map.a, Tensor(), WeightLayout::kOutIn);
  return added(cx, ops::scale(cx, inner, map.scaling), replicated(cx, axis, map.b), y);
}

}  // namespace weft::parallel
