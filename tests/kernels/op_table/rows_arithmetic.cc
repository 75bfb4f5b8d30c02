#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
std::vector<Row> arithmetic_rows() {
  using enum Draw;
  return {
      {"add", binary<ops::add>, pairs(kNormal, kNormal)},
      {"subtract", binary<ops::subtract>, pairs(kNormal, kNormal)},
      {"multiply", binary<ops::multiply>, pairs(kNormal, kNormal)},
      {"divide", binary<ops::divide>, pairs(kNormal, kPositive)},
      {"multiply_self",
       [](Context& cx, Inputs x, const Attributes&) {
         return Outputs{ops::multiply(cx, x[0], x[0])};
       },
       each(many_shapes())},
      {"scale",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::scale(cx, x[0], a.real("factor"))};
       },
       each(many_shapes(), {{"factor", {-1.5}}})},
  };
}

}  // namespace weft::op_table
