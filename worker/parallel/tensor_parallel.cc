#include "worker/parallel/tensor_parallel.h"

#include "worker/parallel/blocked.h"
#include "worker/parallel/overlapped_linear.h"

namespace weft::parallel {
namespace {

constexpr int kTokenDim = -2;

}  // namespace

Tensor column_input(Context& cx, const TensorAxis& axis, const Tensor& x) {
  if (axis.blocks > 0) return x;  // whoever multiplies gathers it
  if (axis.sequence_parallel) return gather_along(cx, axis.comm, x, kTokenDim, axis.tokens);
  return copy_to_axis(cx, axis.comm, x);
}

Tensor column_linear(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& weight,
                     const Tensor& bias, ops::WeightLayout layout,
                     std::optional<ops::Activation> activation, int parts) {
  if (axis.blocks > 0) {
    return blocked_linear(cx, axis, x, weight, bias, {layout, Shared::kOutputs, activation, parts});
  }
  if (overlaps(axis, x)) return gathered_linear(cx, axis, x, weight, bias, layout, activation);
  return ops::linear(cx, column_input(cx, axis, x), weight, bias, layout, activation);
}

std::vector<Tensor> column_linears(Context& cx, const TensorAxis& axis, const Tensor& x,
                                   std::span<const Tensor> weights, std::span<const Tensor> biases,
                                   ops::WeightLayout layout, std::span<const Held> held) {
  WEFT_CHECK(biases.empty() || biases.size() == weights.size(), "{} biases of {} weights",
             biases.size(), weights.size());
  if (axis.blocks > 0) return blocked_linears(cx, axis, x, weights, biases, layout, held);
  if (overlaps(axis, x)) return gathered_linears(cx, axis, x, weights, biases, layout);
  const Tensor input = column_input(cx, axis, x);
  std::vector<Tensor> results;
  for (size_t i = 0; i < weights.size(); ++i) {
    const Tensor bias = biases.empty() ? Tensor() : biases[i];
    results.push_back(ops::linear(cx, input, weights[i], bias, layout));
  }
  return results;
}

Tensor row_output(Context& cx, const TensorAxis& axis, const Tensor& x) {
  if (!axis.sequence_parallel) return sum_over_axis(cx, axis.comm, x);
  WEFT_CHECK(x.shape()[kTokenDim] == axis.tokens, "{} with {} tokens", x.shape().to_string(),
             axis.tokens);
  return scatter_sum_along(cx, axis.comm, x, kTokenDim);
}

Tensor row_linear(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& weight,
                  const Tensor& bias, ops::WeightLayout layout, const Tensor& residual) {
  if (axis.blocks > 0) {
    return blocked_linear(cx, axis, x, weight, bias, {layout, Shared::kInputs}, residual);
  }
  if (axis.comm.size() == 1) {
    return ops::linear(cx, x, weight, bias, layout, std::nullopt, residual);
  }
  Tensor sum = overlaps(axis, x)
                   ? scattered_linear(cx, axis, x, weight, layout)
                   : row_output(cx, axis, ops::linear(cx, x, weight, Tensor(), layout));
  if (bias) sum = ops::add(cx, sum, replicated(cx, axis, bias));
  return residual ? ops::add(cx, residual, sum) : sum;
}

Tensor join_tokens(Context& cx, const TensorAxis& axis, const Tensor& x) {
  if (!axis.sequence_parallel) return x;
  return join_along(cx, axis.comm, x, kTokenDim, axis.tokens);
}

Tensor split_tokens(Context& cx, const TensorAxis& axis, const Tensor& x) {
  return axis.sequence_parallel ? split_along(cx, axis.comm, x, kTokenDim) : x;
}

Tensor own_numbers(Context& cx, const TensorAxis& axis, const Tensor& x) {
  const Part own = axis.token_part();
  if (axis.blocks == 0) return ops::slice(cx, x, 1, own.start, own.length);
  Shape one_row = x.shape();
  one_row[0] = 1;
  one_row[1] = axis.tokens;
  return ops::slice(cx, ops::reshape(cx, x, one_row), 1, own.start, own.length);
}

Tensor replicated(Context& cx, const TensorAxis& axis, const Tensor& parameter) {
  return axis.sequence_parallel && axis.blocks == 0 ? copy_to_axis(cx, axis.comm, parameter)
                                                    : parameter;
}

Tensor vocabulary_embedding(Context& cx, const TensorAxis& axis, const Tensor& ids,
                            const Tensor& table, int64_t vocabulary, int64_t padding_id) {
  const Part rows = axis.part(vocabulary);
  WEFT_CHECK(table.dim(0) == rows.length, "{} rows of {}, expected {}", table.dim(0), vocabulary,
             rows.length);
  if (axis.blocks > 0) return blocked_embedding(cx, axis, ids, table, vocabulary, padding_id);
  return row_output(cx, axis, ops::embedding(cx, ids, table, rows.start, padding_id));
}

}  // namespace weft::parallel
