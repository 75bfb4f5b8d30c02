#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

// Shapes with a dim to reduce over: first, middle, last; empty, one, prime, long, wide.
std::vector<Case> along_dims(const Attributes& more = {}) {
  const std::vector<std::pair<Shape, double>> places{
      {{1}, 0},          {{7}, 0},       {{3, 5, 2}, 0},  {{3, 5, 2}, 1}, {{3, 5, 2}, -1},
      {{0, 5}, 1},       {{5, 1}, -1},   {{101, 3}, 0},   {{3, 101}, 1},  {{1, 1, 1}, 1},
      {{2, 3, 4, 5}, 2}, {{2, 1031}, 1}, {{131, 521}, 0}, {{37}, 0}};
  std::vector<Case> cases;
  for (const auto& [shape, dim] : places) {
    for (const double keep : {0.0, 1.0}) {
      Case item{{real(shape)}, Attributes{{"dim", {dim}}, {"keep", {keep}}}};
      for (const auto& [name, values] : more.values()) item.attributes.set(name, values);
      cases.push_back(std::move(item));
    }
  }
  return cases;
}

Outputs summed(Context& cx, Inputs x, const Attributes& a) {
  return {ops::sum(cx, x[0], a.dim(), a.flag("keep"))};
}

// One slice after the other: the plainest sum.
Outputs summed_one_by_one(Context& cx, Inputs x, const Attributes& a) {
  const int dim = a.dim();
  const int64_t extent = x[0].dim(dim);
  Shape one = x[0].shape();
  one[dim] = 1;
  Tensor total = Tensor::zeros(cx.allocator, one, x[0].dtype());
  for (int64_t i = 0; i < extent; ++i) total = ops::add(cx, total, ops::slice(cx, x[0], dim, i, 1));
  if (a.flag("keep")) return {total};
  Shape shape;
  const int skipped = dim < 0 ? dim + x[0].shape().dims() : dim;
  for (int i = 0; i < x[0].shape().dims(); ++i) {
    if (i != skipped) shape.push_back(x[0].dim(i));
  }
  return {ops::reshape(cx, total, shape)};
}

Outputs averaged_one_by_one(Context& cx, Inputs x, const Attributes& a) {
  const Tensor total = summed_one_by_one(cx, x, a)[0];
  return {ops::scale(cx, total, 1.0 / static_cast<double>(x[0].dim(a.dim())))};
}

// Element by element, or of a large tensor dim by dim.
Outputs summed_whole(Context& cx, Inputs x, const Attributes&) {
  Tensor total = x[0];
  if (total.elements() > 1000) {
    while (total.shape().dims() > 0) {
      const std::vector<Tensor> rest{total};
      total = summed_one_by_one(cx, rest, {{"dim", {0}}})[0];
    }
    return {total};
  }
  const std::vector<Tensor> flat{ops::reshape(cx, total, Shape{total.elements()})};
  return summed_one_by_one(cx, flat, {{"dim", {0}}});
}

}  // namespace

std::vector<Row> reduction_rows() {
  return {
      {"sum", summed, all({along_dims(), each({{0}, {0, 3}, {0, 2, 2}}, {{"dim", {0}}})}),
       summed_one_by_one},
      {"sum_in_blocks", summed, along_dims({{"block_count", {4}}}), summed_one_by_one},
      {"mean",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::mean(cx, x[0], a.dim(), a.flag("keep"))};
       },
       along_dims(), averaged_one_by_one},
      {"sum_all",
       [](Context& cx, Inputs x, const Attributes&) { return Outputs{ops::sum_all(cx, x[0])}; },
       each(many_shapes()), summed_whole},
  };
}

}  // namespace weft::op_table
