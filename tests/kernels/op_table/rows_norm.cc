#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

const std::vector<Shape>& row_shapes() {
  static const std::vector<Shape> shapes{
      {7},     {2, 3, 7},    {0, 7},    {1, 3},    {131, 3}, {3, 5},    {1, 257}, {2, 1031},
      {5, 13}, {2, 2, 2, 3}, {67, 251}, {1, 1, 5}, {3, 64},  {2, 0, 5}, {1},      {1, 1}};
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
      {"layer_norm", layer_normed, layer_norms(), nullptr, 16},
      {"softmax",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::softmax(cx, x[0], a.dim())};
       },
       softmaxes(), nullptr, 16},
  };
}

}  // namespace weft::op_table
