#include "kernels/ops/elementwise.h"
#include "kernels/ops/indexing.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/segments.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

// Unsorted segments, some of them empty.
std::vector<Case> segmented(Draw drawn) {
  const std::vector<std::pair<Shape, int64_t>> graphs{
      {{7}, 3},       {{1}, 1},         {{1, 1}, 2}, {{0}, 3},       {{0, 2}, 1},
      {{13, 2}, 5},   {{5, 3}, 9},      {{4, 0}, 2}, {{6, 2, 3}, 3}, {{37, 1}, 4},
      {{131, 5}, 31}, {{1031, 17}, 67}, {{31, 7}, 1}};
  std::vector<Case> cases;
  for (const auto& [shape, count] : graphs) {
    cases.push_back({{{shape, drawn, 0, 0, {}, true}, index({shape[0]}, 0, count)},
                     {{"count", {static_cast<double>(count)}}}});
  }
  return cases;
}

template <Tensor (*kOp)(Context&, const Tensor&, const Tensor&, int64_t)>
Outputs segment_op(Context& cx, Inputs x, const Attributes& a) {
  return {kOp(cx, x[0], x[1], a.integer("count"))};
}

// exp, sums and a division: no maximum is taken off.
Outputs softmax_composed(Context& cx, Inputs x, const Attributes& a) {
  const Tensor e = ops::exp(cx, x[0]);
  const Tensor sums = ops::segment_sum(cx, e, x[1], a.integer("count"));
  return {ops::divide(cx, e, ops::index_select(cx, sums, 0, x[1]))};
}

// A compressed sparse row layout: offsets, summed by segment.
Outputs summed_by_offsets(Context& cx, Inputs x, const Attributes&) {
  const Tensor segment = ops::segments_of_offsets(cx, x[1]);
  return {ops::segment_sum(cx, x[0], segment, x[1].dim(0) - 1), segment};
}

std::vector<Case> offsets() {
  std::vector<Case> cases;
  for (const std::vector<int64_t>& list : std::vector<std::vector<int64_t>>{{0},
                                                                            {0, 0},
                                                                            {0, 1},
                                                                            {0, 7},
                                                                            {0, 2, 2, 5},
                                                                            {0, 0, 3},
                                                                            {0, 3, 3},
                                                                            {0, 1, 2, 3},
                                                                            {0, 13, 13, 37},
                                                                            {0, 5, 131},
                                                                            {0, 0, 0},
                                                                            {0, 1, 1, 1, 2},
                                                                            {0, 4, 4, 4}}) {
    const int64_t count = static_cast<int64_t>(list.size());
    cases.push_back({{real({list.back(), 3}), given({count}, list)}, {}});
  }
  return cases;
}

}  // namespace

std::vector<Row> segment_rows() {
  using enum Draw;
  return {
      {"segment_sum", segment_op<ops::segment_sum>, segmented(kNormal), nullptr, 16},
      {"segment_mean", segment_op<ops::segment_mean>, segmented(kNormal), nullptr, 16},
      {"segment_max", segment_op<ops::segment_max>, segmented(kDistinct)},
      {"segment_softmax", segment_op<ops::segment_softmax>, segmented(kNormal), softmax_composed},
      {"segment_sum_by_offsets", summed_by_offsets, offsets(), nullptr, 16},
  };
}

}  // namespace weft::op_table
