#include "kernels/ops/elementwise.h"
#include "kernels/ops/norms.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

const std::vector<Shape>& row_shapes() {
  static const std::vector<Shape> shapes{{7},       {2, 3, 7}, {0, 7},    {1, 2},    {131, 2},
                                         {3, 5},    {1, 257},  {2, 1031}, {5, 13},   {2, 2, 2, 3},
                                         {67, 251}, {1, 1, 5}, {3, 64},   {2, 0, 5}, {1},
                                         {1, 1},    {2, 0},    {0, 0},    {0}};
  return shapes;
}

Outputs layer_normed(Context& cx, Inputs x, const Attributes& a) {
  return {ops::layer_norm(cx, x[0], x[1], x[2], a.real("epsilon"))};
}

std::vector<Case> layer_norms() {
  std::vector<Case> cases;
  for (const Shape& shape : row_shapes()) {
    cases.push_back({{real(shape), real({shape[-1]}), real({shape[-1]})}, {{"epsilon", {1e-2}}}});
  }
  cases.push_back({{real({2, 3, 7}), real({7}), real({7})}, {{"epsilon", {1e-5}}}});
  return cases;
}

// By means, and a division by the root.
Outputs layer_norm_composed(Context& cx, Inputs x, const Attributes& a) {
  const Tensor centered = ops::subtract(cx, x[0], ops::mean(cx, x[0], -1, true));
  const Tensor small = Tensor::full(cx.allocator, Shape{}, a.real("epsilon"), x[0].dtype());
  const Tensor variance = ops::mean(cx, ops::square(cx, centered), -1, true);
  const Tensor hat = ops::divide(cx, centered, ops::sqrt(cx, ops::add(cx, variance, small)));
  return {ops::add(cx, ops::multiply(cx, hat, x[1]), x[2])};
}

Outputs rms_normed(Context& cx, Inputs x, const Attributes& a) {
  return {ops::rms_norm(cx, x[0], x[1], a.real("epsilon"))};
}

Outputs rms_norm_composed(Context& cx, Inputs x, const Attributes& a) {
  const Tensor small = Tensor::full(cx.allocator, Shape{}, a.real("epsilon"), x[0].dtype());
  const Tensor squares = ops::mean(cx, ops::square(cx, x[0]), -1, true);
  const Tensor hat = ops::divide(cx, x[0], ops::sqrt(cx, ops::add(cx, squares, small)));
  return {ops::multiply(cx, hat, x[1])};
}

// Weights as a model of half precision has them: in fp32 (of float64 rows in float64).
Tensor in_single(Context& cx, const Tensor& weight) {
  return ops::cast(cx, weight, gradient_dtype(weight.dtype()));
}
Outputs layer_normed_in_single(Context& cx, Inputs x, const Attributes& a) {
  return {ops::layer_norm(cx, x[0], in_single(cx, x[1]), in_single(cx, x[2]), a.real("epsilon"))};
}
Outputs rms_normed_in_single(Context& cx, Inputs x, const Attributes& a) {
  return {ops::rms_norm(cx, x[0], in_single(cx, x[1]), a.real("epsilon"))};
}

std::vector<Case> rms_norms() {
  std::vector<Case> cases = layer_norms();
  for (Case& item : cases) item.inputs.pop_back();
  return cases;
}

Outputs softmaxed(Context& cx, Inputs x, const Attributes& a) {
  return {ops::softmax(cx, x[0], a.dim())};
}

// No maximum is taken off: inputs are of order 1.
Outputs softmax_composed(Context& cx, Inputs x, const Attributes& a) {
  const Tensor e = ops::exp(cx, x[0]);
  return {ops::divide(cx, e, ops::sum(cx, e, a.dim(), true))};
}

Outputs log_softmaxed(Context& cx, Inputs x, const Attributes& a) {
  return {ops::log_softmax(cx, x[0], a.dim())};
}

Outputs log_softmax_composed(Context& cx, Inputs x, const Attributes& a) {
  const Tensor total = ops::sum(cx, ops::exp(cx, x[0]), a.dim(), true);
  return {ops::subtract(cx, x[0], ops::log(cx, total))};
}

std::vector<Case> softmaxes() {
  std::vector<Case> cases = each(row_shapes(), {{"dim", {-1}}});
  for (const Case& item : each({{3, 5, 2}, {1, 1, 1}, {2, 7, 0}, {2, 3, 4, 5}}, {{"dim", {1}}})) {
    cases.push_back(item);
  }
  for (const Case& item : each({{7, 3}, {1, 3}, {37, 2}}, {{"dim", {0}}})) cases.push_back(item);
  return cases;
}

}  // namespace

std::vector<Row> norm_rows() {
  return {
      {"layer_norm", layer_normed, layer_norms(), layer_norm_composed, 8},
      {"rms_norm", rms_normed, rms_norms(), rms_norm_composed},
      {"layer_norm_fp32_weights", layer_normed_in_single, layer_norms(), layer_norm_composed, 8},
      {"rms_norm_fp32_weights", rms_normed_in_single, rms_norms(), rms_norm_composed},
      {"softmax", softmaxed, softmaxes(), softmax_composed},
      {"log_softmax", log_softmaxed, softmaxes(), log_softmax_composed},
  };
}

}  // namespace weft::op_table
