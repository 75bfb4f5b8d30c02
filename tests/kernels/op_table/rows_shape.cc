#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

struct Change {
  Shape from;
  std::vector<double> to;
};

std::vector<Case> changes(const std::string& name, const std::vector<Change>& list) {
  std::vector<Case> cases;
  for (const Change& change : list) cases.push_back({{real(change.from)}, {{name, change.to}}});
  return cases;
}

Shape shape_of(const Attributes& a, const std::string& name) { return Shape(a.integers(name)); }

std::vector<int> order_of(const Attributes& a) {
  const std::vector<int64_t> order = a.integers("order");
  return {order.begin(), order.end()};
}

Outputs reshaped(Context& cx, Inputs x, const Attributes& a) {
  return {ops::reshape(cx, x[0], shape_of(a, "shape"))};
}
Outputs permuted(Context& cx, Inputs x, const Attributes& a) {
  return {ops::permute(cx, x[0], order_of(a))};
}
Outputs reshaped_after_permute(Context& cx, Inputs x, const Attributes& a) {
  return {ops::reshape(cx, permuted(cx, x, a)[0], shape_of(a, "shape"))};
}

std::vector<Case> slices() {
  struct Part {
    Shape shape;
    double dim, start, length;
  };
  std::vector<Case> cases;
  for (const Part& part : std::vector<Part>{{{5, 3}, 0, 1, 3},
                                            {{5, 3}, -1, 0, 2},
                                            {{5, 3}, 1, 1, 2},
                                            {{5, 3}, 0, 2, 0},
                                            {{7}, 0, 6, 1},
                                            {{1}, 0, 0, 1},
                                            {{2, 3, 4}, 1, 1, 1},
                                            {{2, 3, 4}, 2, 0, 4},
                                            {{0, 5}, 1, 1, 3},
                                            {{13, 1}, 0, 3, 7},
                                            {{2, 2, 2, 3}, 2, 1, 1},
                                            {{67, 251}, 1, 17, 101},
                                            {{1, 7}, 1, 2, 5},
                                            {{37}, 0, 1, 35},
                                            {{3, 0}, 0, 1, 2},
                                            {{2, 1, 3}, -1, 1, 1},
                                            {{67, 251}, 0, 5, 61}}) {
    cases.push_back({{real(part.shape)},
                     {{"dim", {part.dim}}, {"start", {part.start}}, {"length", {part.length}}}});
  }
  return cases;
}

std::vector<Case> paddings() {
  struct Part {
    Shape shape;
    double dim, before, after;
  };
  std::vector<Case> cases;
  for (const Part& part : std::vector<Part>{{{2, 3}, 1, 2, 1},
                                            {{2, 3}, 0, 0, 1},
                                            {{2, 3}, 0, 0, 0},
                                            {{2, 3, 4}, 1, 1, 1},
                                            {{1}, 0, 3, 0},
                                            {{0}, 0, 1, 2},
                                            {{0, 3}, 1, 1, 0},
                                            {{7}, 0, 0, 5},
                                            {{2, 2, 2}, -1, 1, 1},
                                            {{13, 1}, -1, 0, 4},
                                            {{67, 251}, 0, 1, 1},
                                            {{37}, 0, 1, 1},
                                            {{1, 5}, 0, 2, 0},
                                            {{2, 1, 3, 2}, 2, 1, 2},
                                            {{67, 251}, 1, 3, 2}}) {
    cases.push_back({{real(part.shape)},
                     {{"dim", {part.dim}}, {"before", {part.before}}, {"after", {part.after}}}});
  }
  return cases;
}

std::vector<Case> splits() {
  struct Part {
    Shape shape;
    double dim;
    std::vector<double> lengths;
  };
  std::vector<Case> cases;
  for (const Part& part : std::vector<Part>{{{2, 7}, 1, {3, 3, 1}},
                                            {{2, 7}, 0, {1, 1}},
                                            {{1}, 0, {1}},
                                            {{5}, 0, {2, 0, 3}},
                                            {{0, 4}, 1, {1, 3}},
                                            {{3, 0}, 1, {0, 0}},
                                            {{2, 3, 4}, 1, {1, 2}},
                                            {{2, 3, 4}, -1, {2, 2}},
                                            {{13}, 0, {6, 7}},
                                            {{2, 1, 6}, 2, {1, 2, 3}},
                                            {{67, 251}, 1, {100, 151}},
                                            {{1, 5}, 1, {4, 1}},
                                            {{3, 1}, 0, {1, 1, 1}},
                                            {{2, 2, 2, 3}, 1, {1, 1}},
                                            {{67, 251}, 0, {1, 66}}}) {
    cases.push_back({{real(part.shape)}, {{"dim", {part.dim}}, {"lengths", part.lengths}}});
  }
  return cases;
}

std::vector<Case> joins() {
  const std::vector<std::pair<double, std::vector<Shape>>> lists{{1, {{2, 3}, {2, 1}, {2, 2}}},
                                                                 {0, {{2, 3}, {1, 3}}},
                                                                 {0, {{1}}},
                                                                 {0, {{0}, {3}}},
                                                                 {0, {{0}, {0}}},
                                                                 {-1, {{2, 3, 4}, {2, 3, 1}}},
                                                                 {1, {{2, 3, 4}, {2, 2, 4}}},
                                                                 {0, {{7}, {5}, {13}}},
                                                                 {1, {{0, 2}, {0, 3}}},
                                                                 {0, {{1, 1}, {1, 1}, {1, 1}}},
                                                                 {2, {{1, 2, 3}, {1, 2, 0}}},
                                                                 {0, {{67, 251}, {3, 251}}},
                                                                 {1, {{67, 251}, {67, 2}}}};
  std::vector<Case> cases;
  for (const auto& [dim, shapes] : lists) {
    Case item{{}, {{"dim", {dim}}}};
    for (const Shape& shape : shapes) item.inputs.push_back(real(shape));
    cases.push_back(std::move(item));
  }
  return cases;
}

const std::vector<Change> kReshapes{
    {{3, 4}, {2, 6}},       {{3, 4}, {12}},      {{12}, {2, 2, 3}}, {{1}, {}},
    {{}, {1, 1}},           {{0, 3}, {3, 0, 2}}, {{7}, {7, 1}},     {{2, 3, 5}, {6, 5}},
    {{2, 3, 5}, {2, 15}},   {{2, 3, 4}, {4, 6}}, {{1, 13}, {13}},   {{67, 251}, {251, 67}},
    {{2, 1, 3}, {3, 1, 2}}, {{37}, {1, 37, 1}}};

std::vector<Row> rearrangement_rows() {
  return {
      {"reshape", reshaped, changes("shape", kReshapes)},
      {"permute", permuted,
       changes("order", {{{2, 3, 4}, {2, 0, 1}},
                         {{3, 5}, {1, 0}},
                         {{3, 5}, {0, 1}},
                         {{7}, {0}},
                         {{}, {}},
                         {{1}, {0}},
                         {{0, 3}, {1, 0}},
                         {{2, 3, 4}, {0, 2, 1}},
                         {{2, 3, 4}, {2, 1, 0}},
                         {{2, 1, 3, 2}, {3, 1, 0, 2}},
                         {{1, 1, 5}, {2, 0, 1}},
                         {{67, 251}, {1, 0}},
                         {{13, 1}, {1, 0}},
                         {{2, 2, 3}, {1, 2, 0}},
                         {{3, 1, 2, 5}, {0, 3, 2, 1}}})},
      {"contiguous",
       [](Context& cx, Inputs x, const Attributes&) { return Outputs{ops::contiguous(cx, x[0])}; },
       each(many_shapes())},
      {"slice",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::slice(cx, x[0], a.dim(), a.integer("start"), a.integer("length"))};
       },
       slices()},
      {"pad",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::pad(cx, x[0], a.dim(), a.integer("before"), a.integer("after"))};
       },
       paddings()},
      {"split",
       [](Context& cx, Inputs x, const Attributes& a) {
         return ops::split(cx, x[0], a.dim(), a.integers("lengths"));
       },
       splits()},
      {"concat",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::concat(cx, x, a.dim())};
       },
       joins()},
  };
}

// Where one tensor is used twice, and views of views.
std::vector<Row> reuse_rows() {
  std::vector<Case> turned;
  for (const auto& [shape, order, to] :
       std::vector<std::tuple<Shape, std::vector<double>, std::vector<double>>>{
           {{3, 4}, {1, 0}, {2, 6}},
           {{3, 4}, {1, 0}, {12}},
           {{2, 3, 4}, {0, 2, 1}, {2, 12}},
           {{2, 3, 4}, {1, 0, 2}, {6, 4}},
           {{2, 3, 4}, {2, 0, 1}, {24}},
           {{1, 5}, {1, 0}, {5}},
           {{1, 1}, {1, 0}, {1}},
           {{0, 4}, {1, 0}, {2, 0}},
           {{7, 1}, {1, 0}, {7}},
           {{2, 3, 2, 2}, {0, 2, 1, 3}, {2, 2, 6}},
           {{13, 2}, {1, 0}, {26}},
           {{67, 251}, {1, 0}, {67, 251}},
           {{1}, {0}, {1, 1}},
           {{3, 1, 5}, {2, 1, 0}, {15}},
           {{2, 5}, {1, 0}, {5, 2}}}) {
    turned.push_back({{real(shape)}, {{"order", order}, {"shape", to}}});
  }
  return {
      {"permute_reshape", reshaped_after_permute, turned},
      {"overlapping_slices",
       [](Context& cx, Inputs x, const Attributes&) {
         const int64_t length = x[0].dim(-1) - 1;
         return Outputs{ops::add(cx, ops::slice(cx, x[0], -1, 0, length),
                                 ops::slice(cx, x[0], -1, 1, length))};
       },
       each({{1},
             {2},
             {7},
             {5, 3},
             {0, 4},
             {3, 1},
             {2, 3, 4},
             {13},
             {1, 1, 2},
             {2, 2, 2, 5},
             {131},
             {67, 251}})},
      {"concat_same",
       [](Context& cx, Inputs x, const Attributes& a) {
         const std::vector<Tensor> twice{x[0], x[0]};
         return Outputs{ops::concat(cx, twice, a.dim())};
       },
       each({{1},
             {2},
             {7},
             {5, 3},
             {0, 4},
             {3, 1},
             {2, 3, 4},
             {13},
             {1, 1, 2},
             {2, 2, 2, 5},
             {131},
             {67, 251}},
            {{"dim", {0}}})},
  };
}

}  // namespace

std::vector<Row> shape_rows() {
  std::vector<Row> rows = rearrangement_rows();
  for (Row& row : reuse_rows()) rows.push_back(std::move(row));
  return rows;
}

}  // namespace weft::op_table
