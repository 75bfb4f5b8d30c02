// Reductions over several dims, extremes, and sums along a dim.
#include "kernels/ops/ops.h"
#include "kernels/ops/reductions.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

std::vector<int> dims_of(const Attributes& a) {
  const std::vector<int64_t> dims = a.integers("dims");
  return {dims.begin(), dims.end()};
}

std::vector<Case> over_dims(const Attributes& more = {}) {
  const std::vector<std::pair<Shape, std::vector<double>>> places{{{3, 5, 2}, {0, 1}},
                                                                  {{3, 5, 2}, {0, 2}},
                                                                  {{3, 5, 2}, {2, 1}},
                                                                  {{3, 5, 2}, {0, 1, 2}},
                                                                  {{7}, {0}},
                                                                  {{1}, {0}},
                                                                  {{1, 1}, {0, 1}},
                                                                  {{2, 3, 4, 5}, {0, 2, 3}},
                                                                  {{2, 3, 4, 5}, {1, -1}},
                                                                  {{0, 3}, {1}},
                                                                  {{3, 4, 1}, {2}},
                                                                  {{5, 4}, {-2}},
                                                                  {{67, 3, 251}, {0, 2}},
                                                                  {{2, 3, 2, 2, 3}, {0, 2, 4}},
                                                                  {{1, 37}, {1}},
                                                                  {{13, 1, 2}, {0, 1}}};
  std::vector<Case> cases;
  for (const auto& [shape, dims] : places) {
    for (const double keep : {0.0, 1.0}) {
      Case item{{real(shape)}, {{"dims", dims}, {"keep", {keep}}}};
      for (const auto& [name, values] : more.values()) item.attributes.set(name, values);
      cases.push_back(std::move(item));
    }
  }
  return cases;
}

// One dim after the other by the sum over one.
Outputs summed_dim_by_dim(Context& cx, Inputs x, const Attributes& a) {
  Tensor total = x[0];
  for (const int dim : dims_of(a)) total = ops::sum(cx, total, dim, true);
  return {ops::reshape(cx, total, ops::sum(cx, x[0].detach(), dims_of(a), a.flag("keep")).shape())};
}

std::vector<Case> along(Draw drawn) {
  const std::vector<std::pair<Shape, double>> places{
      {{7}, 0},       {{1}, 0},       {{3, 5}, 0},    {{3, 5}, 1},   {{3, 5, 2}, 1},
      {{0, 5}, 1},    {{5, 1}, -1},   {{2, 1031}, 1}, {{131, 3}, 0}, {{2, 3, 4, 5}, 2},
      {{67, 251}, 0}, {{67, 251}, 1}, {{1, 1, 1}, 1}, {{2, 513}, -1}};
  std::vector<Case> cases;
  for (const auto& [shape, dim] : places) {
    cases.push_back({{{shape, drawn, 0, 0, {}, true}}, {{"dim", {dim}}, {"keep", {0}}}});
    cases.push_back({{{shape, drawn, 0, 0, {}, true}}, {{"dim", {dim}}, {"keep", {1}}}});
  }
  return cases;
}

Outputs accumulated(Context& cx, Inputs x, const Attributes& a) {
  return {ops::cumulative_sum(cx, x[0], a.dim(), a.flag("keep"))};  // keep: from the end
}

// Slices added one after the other.
Outputs accumulated_by_slices(Context& cx, Inputs x, const Attributes& a) {
  const int dim = a.dim();
  const int64_t extent = x[0].dim(dim);
  std::vector<Tensor> sums(static_cast<size_t>(extent));
  for (int64_t i = 0; i < extent; ++i) {
    const int64_t at = a.flag("keep") ? extent - 1 - i : i,
                  before = a.flag("keep") ? at + 1 : at - 1;
    const Tensor part = ops::slice(cx, x[0], dim, at, 1);
    sums[static_cast<size_t>(at)] =
        i == 0 ? part : ops::add(cx, sums[static_cast<size_t>(before)], part);
  }
  return {ops::concat(cx, sums, dim)};
}

}  // namespace

std::vector<Row> dims_rows() {
  return {
      {"sum_dims",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::sum(cx, x[0], dims_of(a), a.flag("keep"))};
       },
       over_dims(), summed_dim_by_dim},
      {"sum_dims_in_blocks",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::sum(cx, x[0], dims_of(a), a.flag("keep"))};
       },
       over_dims({{"block_count", {2}}}), summed_dim_by_dim},
      {"mean_dims",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::mean(cx, x[0], dims_of(a), a.flag("keep"))};
       },
       over_dims()},
      {"variance",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::variance(cx, x[0], dims_of(a), a.real("correction"), a.flag("keep"))};
       },
       over_dims({{"correction", {0.5}}})},
      {"max",
       [](Context& cx, Inputs x, const Attributes& a) {
         const ops::Extremes found = ops::max(cx, x[0], a.dim(), a.flag("keep"));
         return Outputs{found.values, found.indices};
       },
       along(Draw::kDistinct)},
      {"min",
       [](Context& cx, Inputs x, const Attributes& a) {
         const ops::Extremes found = ops::min(cx, x[0], a.dim(), a.flag("keep"));
         return Outputs{found.values, found.indices};
       },
       along(Draw::kDistinct)},
      {"argmax",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::argmax(cx, x[0], a.dim(), a.flag("keep")),
                        ops::argmin(cx, x[0], a.dim(), a.flag("keep"))};
       },
       along(Draw::kDistinct), nullptr, 4, false},
      {"cumulative_sum", accumulated, along(Draw::kNormal), accumulated_by_slices},
  };
}

}  // namespace weft::op_table
