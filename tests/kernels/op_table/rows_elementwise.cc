#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

Outputs raised(Context& cx, Inputs x, const Attributes& a) {
  return {ops::power(cx, x[0], a.real("exponent"))};
}

std::vector<Case> powers() {
  std::vector<Case> cases;
  for (const double exponent : {2.0, 0.5, -0.5, 3.0, -1.0, 2.5, 0.0}) {
    for (const Case& item : each(many_shapes(), {{"exponent", {exponent}}}, Draw::kPositive)) {
      cases.push_back(item);
    }
  }
  return cases;
}

// silu(gate) * up in two passes.
Outputs gated(Context& cx, Inputs x, const Attributes&) {
  return {ops::multiply(cx, ops::activate(cx, x[0], ops::Activation::kSilu), x[1])};
}

std::vector<Case> gates() {
  std::vector<Case> cases;
  for (const Shape& shape : many_shapes()) cases.push_back({{real(shape), real(shape)}, {}});
  return cases;
}

}  // namespace

std::vector<Row> elementwise_rows() {
  using enum Draw;
  return {
      {"negate", unary<ops::negate>, each(many_shapes())},
      {"abs", unary<ops::abs>, each(many_shapes())},
      {"exp", unary<ops::exp>, each(many_shapes())},
      {"log", unary<ops::log>, each(many_shapes(), {}, kPositive)},
      {"sqrt", unary<ops::sqrt>, each(many_shapes(), {}, kPositive)},
      {"rsqrt", unary<ops::rsqrt>, each(many_shapes(), {}, kPositive)},
      {"square", unary<ops::square>, each(many_shapes())},
      {"power", raised, powers()},
      {"clamp",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::clamp(cx, x[0], a.real("low"), a.real("high"))};
       },
       each(many_shapes(), {{"low", {-0.715}}, {"high", {0.905}}}, kDistinct)},
      {"softplus", unary<ops::softplus>, each(many_shapes())},
      {"leaky_relu",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::leaky_relu(cx, x[0], a.real("slope"))};
       },
       each(many_shapes(), {{"slope", {0.2}}})},
      {"elu",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::elu(cx, x[0], a.real("alpha"))};
       },
       each(many_shapes(), {{"alpha", {1.3}}})},
      {"hard_sigmoid", unary<ops::hard_sigmoid>, each(many_shapes())},
      {"hard_swish", unary<ops::hard_swish>, each(many_shapes())},
      {"elu_plus_one", unary<ops::elu_plus_one>, each(many_shapes())},
      {"quick_gelu", unary<ops::quick_gelu>, each(many_shapes())},
      {"swiglu", binary<ops::swiglu>, gates(), gated},
  };
}

}  // namespace weft::op_table
