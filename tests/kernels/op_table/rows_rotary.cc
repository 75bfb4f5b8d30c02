#include <cmath>

#include "kernels/ops/ops.h"
#include "kernels/ops/rotary.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

ops::Angles angles_of(Context& cx, Inputs x, const Attributes& a) {
  const int64_t pairs = a.integer("pairs");
  std::vector<double> frequencies;
  for (int64_t i = 0; i < pairs; ++i) {
    const double exponent = static_cast<double>(i) / static_cast<double>(pairs);
    frequencies.push_back(std::pow(a.real("base"), -exponent));
  }
  const Tensor of_pair = Tensor::from<double>(cx.allocator, Shape{pairs}, frequencies);
  return ops::rotary_angles(cx, x[1], of_pair, DType::kF64);
}

Outputs rotated(Context& cx, Inputs x, const Attributes& a) {
  const ops::Angles angles = angles_of(cx, x, a);
  const auto form = a.flag("halves") ? ops::RotaryForm::kHalves : ops::RotaryForm::kInterleaved;
  return {ops::rotary(cx, x[0], ops::cast(cx, angles.cos, x[0].dtype()),
                      ops::cast(cx, angles.sin, x[0].dtype()), form)};
}

// By slices: x cos + turned sin, where turned holds (-q, p) for each pair (p, q).
Outputs rotated_by_slices(Context& cx, Inputs x, const Attributes& a) {
  const ops::Angles angles = angles_of(cx, x, a);
  const int64_t pairs = a.integer("pairs");
  Shape shape = angles.cos.shape();
  if (shape.dims() == 3) {  // [B, T, R / 2] beside x [B, ..., T, D]
    Shape batched{shape[0]};
    for (int dim = 1; dim + 2 < x[0].shape().dims(); ++dim) batched.push_back(1);
    batched.push_back(shape[1]);
    batched.push_back(shape[2]);
    shape = batched;
  }
  const auto angle = [&](const Tensor& t) {
    return ops::reshape(cx, ops::cast(cx, t, x[0].dtype()), shape);
  };
  const Tensor cos = angle(angles.cos), sin = angle(angles.sin);
  std::vector<Tensor> turned(static_cast<size_t>(2 * pairs));
  for (int64_t i = 0; i < pairs; ++i) {
    const int64_t first = a.flag("halves") ? i : 2 * i,
                  second = a.flag("halves") ? i + pairs : 2 * i + 1;
    const Tensor p = ops::slice(cx, x[0], -1, first, 1), q = ops::slice(cx, x[0], -1, second, 1);
    const Tensor c = ops::slice(cx, cos, -1, i, 1), s = ops::slice(cx, sin, -1, i, 1);
    turned[static_cast<size_t>(first)] =
        ops::subtract(cx, ops::multiply(cx, p, c), ops::multiply(cx, q, s));
    turned[static_cast<size_t>(second)] =
        ops::add(cx, ops::multiply(cx, q, c), ops::multiply(cx, p, s));
  }
  turned.push_back(ops::slice(cx, x[0], -1, 2 * pairs, x[0].dim(-1) - 2 * pairs));
  return {ops::concat(cx, turned, -1)};
}

std::vector<Case> rotations() {
  struct Place {
    Shape x, positions;
    double pairs;
  };
  std::vector<Case> cases;
  for (const Place& place : std::vector<Place>{{{2, 3, 5, 8}, {5}, 4},     // whole width
                                               {{2, 3, 5, 7}, {5}, 2},     // partial width
                                               {{2, 3, 5, 8}, {2, 5}, 4},  // positions by row
                                               {{5, 4}, {5}, 2},
                                               {{3, 1, 6}, {3, 1}, 3},
                                               {{1, 2}, {1}, 1},
                                               {{2, 3, 0, 4}, {0}, 2},
                                               {{0, 3, 4}, {3}, 2},
                                               {{1, 1, 1}, {1}, 0},
                                               {{2, 13, 18}, {13}, 9},
                                               {{1, 2, 37, 66}, {37}, 33},
                                               {{2, 2, 3, 5, 6}, {2, 5}, 3},
                                               {{3, 5, 67, 32}, {67}, 12}}) {
    for (const double halves : {0.0, 1.0}) {
      cases.push_back({{real(place.x), index(place.positions, 0, 5000)},
                       {{"halves", {halves}}, {"pairs", {place.pairs}}, {"base", {10000}}}});
    }
  }
  return cases;
}

}  // namespace

std::vector<Row> rotary_rows() { return {{"rotary", rotated, rotations(), rotated_by_slices}}; }

}  // namespace weft::op_table
