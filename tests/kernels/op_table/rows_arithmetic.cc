#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

// Equal shapes, and every way of broadcasting: rows, columns, both, scalars, missing dims.
std::vector<Case> pairs(Input (*second)(Shape)) {
  const std::vector<std::pair<Shape, Shape>> shapes{
      {{3, 5}, {3, 5}},       {{3, 5}, {5}},       {{3, 5}, {3, 1}}, {{7, 1}, {1, 3}},
      {{2, 3}, {}},           {{}, {2, 3}},        {{}, {}},         {{2, 3, 4}, {2, 1, 4}},
      {{2, 3, 4}, {1, 3, 1}}, {{0, 5}, {5}},       {{5, 0}, {1}},    {{1}, {1}},
      {{13}, {13}},           {{2, 1, 3}, {4, 1}}, {{5}, {3, 5}},    {{67, 251}, {251}},
      {{67, 251}, {67, 251}}, {{1, 1, 7}, {7}}};
  std::vector<Case> cases;
  for (const auto& [a, b] : shapes) cases.push_back({{real(a), second(b)}, {}});
  return cases;
}

}  // namespace

std::vector<Row> arithmetic_rows() {
  return {
      {"add",
       [](Context& cx, Inputs x, const Attributes&) { return Outputs{ops::add(cx, x[0], x[1])}; },
       pairs(real)},
      {"subtract",
       [](Context& cx, Inputs x, const Attributes&) {
         return Outputs{ops::subtract(cx, x[0], x[1])};
       },
       pairs(real)},
      {"multiply",
       [](Context& cx, Inputs x, const Attributes&) {
         return Outputs{ops::multiply(cx, x[0], x[1])};
       },
       pairs(real)},
      {"multiply_self",
       [](Context& cx, Inputs x, const Attributes&) {
         return Outputs{ops::multiply(cx, x[0], x[0])};
       },
       each(many_shapes())},
      {"divide",
       [](Context& cx, Inputs x, const Attributes&) {
         return Outputs{ops::divide(cx, x[0], x[1])};
       },
       pairs(positive)},
      {"scale",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::scale(cx, x[0], a.real("factor"))};
       },
       each(many_shapes(), {{"factor", {-1.5}}})},
  };
}

}  // namespace weft::op_table
