#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

Outputs product(Context& cx, Inputs x, const Attributes&) { return {ops::matmul(cx, x[0], x[1])}; }

std::vector<Case> products(const Attributes& attributes = {}) {
  const std::vector<std::pair<Shape, Shape>> shapes{{{3, 5}, {5, 2}},
                                                    {{1, 1}, {1, 1}},
                                                    {{3, 0}, {0, 2}},
                                                    {{0, 3}, {3, 2}},
                                                    {{2, 3, 0}, {0, 2}},
                                                    {{2, 3, 5}, {2, 5, 7}},
                                                    {{2, 3, 1, 5}, {2, 3, 5, 2}},
                                                    {{2, 3, 5}, {5, 7}},
                                                    {{3, 5}, {4, 5, 2}},
                                                    {{2, 1, 3, 5}, {3, 5, 2}},
                                                    {{1, 7}, {7, 1}},
                                                    {{13, 11}, {11, 17}},
                                                    {{37, 64}, {64, 33}},
                                                    {{3, 67}, {67, 2}}};
  std::vector<Case> cases;
  for (const auto& [a, b] : shapes) cases.push_back({{real(a), real(b)}, attributes});
  return cases;
}

// Rank-one updates, one after the other.
Outputs product_one_by_one(Context& cx, Inputs x, const Attributes&) {
  const Tensor &a = x[0], &b = x[1];
  Tensor total;
  for (int64_t k = 0; k < a.dim(-1); ++k) {
    const Tensor part = ops::multiply(cx, ops::slice(cx, a, -1, k, 1), ops::slice(cx, b, -2, k, 1));
    total = total ? ops::add(cx, total, part) : part;
  }
  if (!total) {  // an empty sum
    const Tensor none_a = ops::sum(cx, a, -1, true), none_b = ops::sum(cx, b, -2, true);
    total = ops::multiply(cx, none_a, none_b);
  }
  return {total};
}

ops::WeightLayout layout_of(const Attributes& a) {
  return a.flag("in_out") ? ops::WeightLayout::kInOut : ops::WeightLayout::kOutIn;
}

Outputs linear(Context& cx, Inputs x, const Attributes& a) {
  return {ops::linear(cx, x[0], x[1], x.size() > 2 ? x[2] : Tensor(), layout_of(a))};
}

Outputs linear_composed(Context& cx, Inputs x, const Attributes& a) {
  const std::vector<int> turned{1, 0};
  Tensor weight = x[1];
  if (weight.shape().dims() > 2) {
    weight = ops::reshape(cx, weight, {weight.dim(0), weight.elements() / weight.dim(0)});
  }
  if (!a.flag("in_out")) weight = ops::permute(cx, weight, turned);
  const std::vector<Tensor> factors{x[0], weight};
  const Tensor y = product_one_by_one(cx, factors, a)[0];
  return {x.size() > 2 ? ops::add(cx, y, x[2]) : y};
}

std::vector<Case> layers() {
  struct Layer {
    Shape x;
    int64_t out;
  };
  std::vector<Case> cases;
  for (const Layer& layer : std::vector<Layer>{{{2, 3, 5}, 7},
                                               {{3, 5}, 1},
                                               {{0, 5}, 2},
                                               {{2, 3, 0}, 4},
                                               {{1, 1}, 1},
                                               {{1, 37}, 3},
                                               {{13, 11}, 17},
                                               {{2, 2, 2, 3}, 5}}) {
    const int64_t in = layer.x[-1];
    for (const double in_out : {0.0, 1.0}) {
      const Shape weight = in_out != 0 ? Shape{in, layer.out} : Shape{layer.out, in};
      cases.push_back({{real(layer.x), real(weight), real({layer.out})}, {{"in_out", {in_out}}}});
      cases.push_back({{real(layer.x), real(weight)}, {{"in_out", {in_out}}}});
    }
  }
  // As convolutions have them.
  cases.push_back({{real({2, 3, 12}), real({5, 3, 2, 2}), real({5})}, {{"in_out", {0}}}});
  cases.push_back({{real({7, 6}), real({4, 1, 6})}, {{"in_out", {0}}}});
  cases.push_back({{real({3, 5}), real({5, 2, 3}), real({6})}, {{"in_out", {1}}}});
  return cases;
}

}  // namespace

std::vector<Row> product_rows() {
  return {
      {"matmul", product, products(), product_one_by_one},
      {"matmul_in_blocks", product, products({{"block_count", {4}}}), product_one_by_one},
      {"linear", linear, layers(), linear_composed},
  };
}

}  // namespace weft::op_table
