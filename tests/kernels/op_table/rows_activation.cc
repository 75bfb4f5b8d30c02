#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

template <ops::Activation kKind>
Outputs activated(Context& cx, Inputs x, const Attributes&) {
  return {ops::activate(cx, x[0], kKind)};
}

}  // namespace

std::vector<Row> activation_rows() {
  using ops::Activation;
  return {
      {"gelu_tanh", activated<Activation::kGeluTanh>, each(many_shapes())},
      {"gelu_erf", activated<Activation::kGeluErf>, each(many_shapes())},
      {"relu", activated<Activation::kRelu>, each(many_shapes())},
      {"silu", activated<Activation::kSilu>, each(many_shapes())},
      {"tanh", activated<Activation::kTanh>, each(many_shapes())},
      {"sigmoid", activated<Activation::kSigmoid>, each(many_shapes())},
  };
}

}  // namespace weft::op_table
