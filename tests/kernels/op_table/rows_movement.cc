#include "kernels/ops/movement.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

// A dim and a number of each shape.
std::vector<Case> moves(const std::string& name, const std::vector<double>& numbers) {
  const std::vector<std::pair<Shape, double>> places{
      {{7}, 0},       {{1}, 0},       {{3, 5}, 0},  {{3, 5}, -1},      {{2, 3, 4}, 1},
      {{0, 5}, 1},    {{3, 0}, 1},    {{13, 1}, 0}, {{2, 3, 2, 2}, 2}, {{1, 1, 1}, 2},
      {{67, 251}, 0}, {{67, 251}, 1}, {{131}, 0},   {{1, 13}, 1}};
  std::vector<Case> cases;
  for (const auto& [shape, dim] : places) {
    for (const double number : numbers) {
      cases.push_back({{real(shape)}, {{"dim", {dim}}, {name, {number}}}});
    }
  }
  return cases;
}

std::vector<Case> stacks() {
  std::vector<Case> cases;
  for (const auto& [shape, dim] : std::vector<std::pair<Shape, double>>{{{}, 0},
                                                                        {{1}, 0},
                                                                        {{1}, 1},
                                                                        {{7}, 0},
                                                                        {{7}, 1},
                                                                        {{7}, -1},
                                                                        {{3, 5}, 1},
                                                                        {{3, 5}, 2},
                                                                        {{0, 2}, 1},
                                                                        {{2, 3, 4}, -2},
                                                                        {{67, 251}, 0},
                                                                        {{67, 251}, 2},
                                                                        {{5, 1}, 0},
                                                                        {{13}, 1},
                                                                        {{1, 1}, -1},
                                                                        {{2, 1, 2, 3}, 4},
                                                                        {{37, 2}, 1}}) {
    cases.push_back({{real(shape), real(shape), real(shape)}, {{"dim", {dim}}}});
  }
  return cases;
}

std::vector<Case> expansions() {
  std::vector<Case> cases;
  for (const auto& [shape, to] :
       std::vector<std::pair<Shape, std::vector<double>>>{{{1}, {7}},
                                                          {{}, {3, 2}},
                                                          {{1}, {1}},
                                                          {{3, 1}, {3, 5}},
                                                          {{1, 5}, {3, 5}},
                                                          {{5}, {3, 5}},
                                                          {{3, 5}, {3, 5}},
                                                          {{2, 1, 3}, {2, 4, 3}},
                                                          {{1, 1}, {0, 3}},
                                                          {{0, 1}, {0, 3}},
                                                          {{13}, {2, 3, 13}},
                                                          {{1, 251}, {67, 251}},
                                                          {{2, 1, 1}, {2, 3, 7}}}) {
    cases.push_back({{real(shape)}, {{"shape", to}}});
  }
  return cases;
}

std::vector<Case> triangles() {
  std::vector<Case> cases;
  for (const Shape& shape : std::vector<Shape>{{3, 3},
                                               {1, 1},
                                               {3, 5},
                                               {5, 3},
                                               {0, 3},
                                               {2, 7, 7},
                                               {67, 251},
                                               {1, 7},
                                               {7, 1},
                                               {3, 0},
                                               {2, 2, 3, 2},
                                               {13, 13}}) {
    for (const double diagonal : {0.0, 1.0, -2.0}) {
      cases.push_back({{real(shape)}, {{"diagonal", {diagonal}}}});
    }
  }
  return cases;
}

Outputs flipped(Context& cx, Inputs x, const Attributes& a) {
  return {ops::flip(cx, x[0], a.dim())};
}
Outputs rolled(Context& cx, Inputs x, const Attributes& a) {
  return {ops::roll(cx, x[0], a.dim(), a.integer("shift"))};
}
Outputs stacked(Context& cx, Inputs x, const Attributes& a) { return {ops::stack(cx, x, a.dim())}; }
Outputs expanded(Context& cx, Inputs x, const Attributes& a) {
  return {ops::expand(cx, x[0], Shape(a.integers("shape")))};
}
Outputs repeated(Context& cx, Inputs x, const Attributes& a) {
  return {ops::repeat(cx, x[0], a.dim(), a.integer("times"))};
}
Outputs interleaved(Context& cx, Inputs x, const Attributes& a) {
  return {ops::repeat_interleave(cx, x[0], a.dim(), a.integer("times"))};
}
Outputs lower(Context& cx, Inputs x, const Attributes& a) {
  return {ops::lower_triangle(cx, x[0], a.integer("diagonal"))};
}
Outputs upper(Context& cx, Inputs x, const Attributes& a) {
  return {ops::upper_triangle(cx, x[0], a.integer("diagonal"))};
}

}  // namespace

std::vector<Row> movement_rows() {
  return {
      {"flip", flipped, moves("unused", {0})},
      {"roll", rolled, moves("shift", {1, -2, 100})},
      {"stack", stacked, stacks()},
      {"expand", expanded, expansions()},
      {"repeat", repeated, moves("times", {1, 3, 0})},
      {"repeat_interleave", interleaved, moves("times", {1, 3, 0})},
      {"lower_triangle", lower, triangles()},
      {"upper_triangle", upper, triangles()},
  };
}

}  // namespace weft::op_table
