#include "kernels/ops/indexing.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

struct Pick {
  Shape x;
  double dim;
  Shape index;
};

const std::vector<Pick>& picks() {
  static const std::vector<Pick> all{{{7}, 0, {5}},
                                     {{1}, 0, {1}},
                                     {{1}, 0, {3}},
                                     {{3, 5}, 0, {4, 5}},
                                     {{3, 5}, 1, {3, 7}},
                                     {{3, 5}, -1, {2, 3}},
                                     {{5, 2}, 0, {0, 2}},
                                     {{2, 3, 4}, 1, {2, 2, 4}},
                                     {{2, 3, 4}, 2, {1, 3, 6}},
                                     {{3, 4}, 1, {0, 3}},
                                     {{131}, 0, {37}},
                                     {{67, 251}, 0, {31, 251}},
                                     {{67, 251}, 1, {67, 300}},
                                     {{1, 1, 5}, 2, {1, 1, 2}}};
  return all;
}

std::vector<Case> gathers(bool scatters) {
  std::vector<Case> cases;
  for (const Pick& pick : picks()) {
    const int64_t extent = pick.x[static_cast<int>(pick.dim)];
    Case item{{real(pick.x), index(pick.index, 0, extent)}, {{"dim", {pick.dim}}}};
    if (scatters) item.inputs.push_back(real(pick.index));
    cases.push_back(std::move(item));
  }
  return cases;
}

std::vector<Case> selections(bool adds) {
  const std::vector<std::tuple<Shape, double, int64_t>> places{
      {{7}, 0, 5},       {{1}, 0, 1},       {{1}, 0, 3},        {{3, 5}, 0, 4},
      {{3, 5}, 1, 7},    {{3, 5}, -1, 0},   {{5, 0}, 0, 2},     {{2, 3, 4}, 1, 2},
      {{2, 3, 4}, 2, 6}, {{131, 3}, 0, 37}, {{67, 251}, 0, 90}, {{67, 251}, 1, 300},
      {{1, 1, 5}, 2, 2}};
  std::vector<Case> cases;
  for (const auto& [shape, dim, count] : places) {
    Shape source = shape;
    source[static_cast<int>(dim)] = count;
    Case item{{real(shape), index({count}, 0, shape[static_cast<int>(dim)])}, {{"dim", {dim}}}};
    if (adds) item.inputs.push_back(real(source));
    cases.push_back(std::move(item));
  }
  return cases;
}

std::vector<Case> sorts() {
  const std::vector<std::tuple<Shape, double, double>> places{
      {{7}, 0, 3},       {{1}, 0, 1},      {{3, 5}, 0, 2},     {{3, 5}, 1, 5},
      {{3, 5}, -1, 1},   {{0, 5}, 1, 3},   {{5, 3}, 1, 0},     {{2, 3, 4}, 1, 2},
      {{2, 3, 4}, 2, 3}, {{131}, 0, 10},   {{67, 251}, 1, 17}, {{67, 251}, 0, 5},
      {{1, 1, 5}, 2, 2}, {{13, 1}, 0, 13}, {{1, 37}, 1, 36},   {{2, 3, 1, 5}, 3, 4}};
  std::vector<Case> cases;
  for (const auto& [shape, dim, k] : places) {
    for (const double down : {0.0, 1.0}) {
      cases.push_back({{distinct(shape)}, {{"dim", {dim}}, {"k", {k}}, {"down", {down}}}});
    }
  }
  return cases;
}

// Few values, so that most are tied.
std::vector<Case> ties() {
  std::vector<Case> cases;
  for (const Shape& shape : std::vector<Shape>{{7},
                                               {1},
                                               {3, 5},
                                               {0, 5},
                                               {131},
                                               {67, 251},
                                               {2, 3, 4},
                                               {13, 1},
                                               {1, 37},
                                               {5, 0},
                                               {1, 1, 5},
                                               {2, 2, 2, 3}}) {
    for (const double down : {0.0, 1.0}) {
      cases.push_back({{index(shape, 0, 3)}, {{"dim", {-1}}, {"down", {down}}}});
    }
  }
  return cases;
}

std::vector<Case> encodings() {
  std::vector<Case> cases;
  for (const Shape& shape : std::vector<Shape>{
           {}, {1}, {7}, {0}, {3, 5}, {2, 3, 4}, {131}, {1, 1}, {5, 0}, {13}, {37}, {2, 1}}) {
    cases.push_back({{index(shape, 0, 5)}, {{"classes", {5}}}});
  }
  return cases;
}

Outputs sorted(Context& cx, Inputs x, const Attributes& a) {
  const ops::Sorted found = ops::sort(cx, x[0], a.dim(), a.flag("down"));
  return {found.values, found.indices};
}
Outputs best(Context& cx, Inputs x, const Attributes& a) {
  const ops::Sorted found = ops::top_k(cx, x[0], a.integer("k"), a.dim(), a.flag("down"));
  return {found.values, found.indices};
}

}  // namespace

std::vector<Row> index_rows() {
  return {
      {"gather",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::gather(cx, x[0], a.dim(), x[1])};
       },
       gathers(false)},
      {"scatter_add",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::scatter_add(cx, x[0], a.dim(), x[1], x[2])};
       },
       gathers(true)},
      {"index_select",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::index_select(cx, x[0], a.dim(), x[1])};
       },
       selections(false)},
      {"index_add",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::index_add(cx, x[0], a.dim(), x[1], x[2])};
       },
       selections(true)},
      {"one_hot",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::one_hot(cx, x[0], a.integer("classes"), DType::kI64)};
       },
       encodings()},
      {"sort", sorted, sorts()},
      {"top_k", best, sorts()},
      {"argsort_of_ties",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{
             ops::argsort(cx, ops::cast(cx, x[0], DType::kF32), a.dim(), a.flag("down"))};
       },
       ties()},
  };
}

}  // namespace weft::op_table
