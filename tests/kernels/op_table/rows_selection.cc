#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

// Masks of integers and of floats: equal ones among them.
Outputs compared(Context& cx, Inputs x, const Attributes& a) {
  const auto kind = static_cast<ops::Comparison>(a.integer("kind"));
  return {ops::compare(cx, x[0], x[1], kind), ops::compare(cx, ops::cast(cx, x[0], DType::kF32),
                                                           ops::cast(cx, x[1], DType::kF32), kind)};
}

std::vector<Case> comparisons() {
  std::vector<Case> cases;
  for (double kind = 0; kind < 6; ++kind) {
    for (const auto& [a, b] : std::vector<std::pair<Shape, Shape>>{{{3, 5}, {3, 5}},
                                                                   {{3, 5}, {5}},
                                                                   {{3, 5}, {3, 1}},
                                                                   {{}, {7}},
                                                                   {{0, 2}, {2}},
                                                                   {{1}, {1}},
                                                                   {{67, 251}, {67, 1}},
                                                                   {{}, {}},
                                                                   {{7, 1}, {1, 3}},
                                                                   {{2, 3, 4}, {2, 1, 4}},
                                                                   {{13}, {13}},
                                                                   {{5, 0}, {1}}}) {
      cases.push_back({{index(a, -2, 3), index(b, -2, 3)}, {{"kind", {kind}}}});
    }
  }
  return cases;
}

Outputs chosen(Context& cx, Inputs x, const Attributes&) {
  return {ops::where(cx, ops::cast(cx, x[0], DType::kU8), x[1], x[2])};
}

std::vector<Case> choices() {
  struct Choice {
    Shape mask, a, b;
  };
  std::vector<Case> cases;
  for (const Choice& choice : std::vector<Choice>{{{3, 5}, {3, 5}, {3, 5}},
                                                  {{5}, {3, 5}, {3, 5}},
                                                  {{3, 1}, {5}, {3, 5}},
                                                  {{3, 5}, {}, {3, 5}},
                                                  {{3, 5}, {3, 5}, {}},
                                                  {{}, {7}, {7}},
                                                  {{0, 2}, {2}, {}},
                                                  {{1}, {1}, {1}},
                                                  {{13}, {1}, {1}},
                                                  {{2, 1, 3}, {4, 1}, {2, 4, 3}},
                                                  {{67, 251}, {67, 251}, {251}},
                                                  {{67, 251}, {67, 251}, {}}}) {
    cases.push_back({{index(choice.mask, 0, 2), real(choice.a), real(choice.b)}, {}});
  }
  return cases;
}

}  // namespace

std::vector<Row> selection_rows() {
  using enum Draw;
  return {
      {"minimum", binary<ops::minimum>, pairs(kDistinct, kNormal)},
      {"maximum", binary<ops::maximum>, pairs(kNormal, kDistinct)},
      {"compare", compared, comparisons()},
      {"where", chosen, choices()},
  };
}

}  // namespace weft::op_table
