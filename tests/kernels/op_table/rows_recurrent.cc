// Recurrent gates, cells and sequences.
#include "kernels/ops/movement.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/recurrent.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

using ops::Activation;

struct Sizes {
  int64_t steps, batch, inputs, state;
};
const std::vector<Sizes>& many_sizes() {
  static const std::vector<Sizes> sizes{
      {3, 2, 5, 4},  {1, 1, 1, 1},  {2, 0, 3, 2},  {5, 1, 2, 7},  {2, 3, 1, 13},  {7, 5, 3, 1},
      {1, 13, 4, 3}, {4, 2, 11, 5}, {13, 1, 1, 2}, {2, 7, 2, 37}, {3, 31, 5, 67}, {1, 131, 3, 64}};
  return sizes;
}

// The shapes of h, then `states` of them, behind `gates` tensors of `count` gates each.
std::vector<Case> gates(int count, int tensors, int states) {
  std::vector<Case> cases;
  for (const Sizes& s : many_sizes()) {
    Case item;
    for (int i = 0; i < tensors; ++i) item.inputs.push_back(real({s.batch, count * s.state}));
    for (int i = 0; i < states; ++i) item.inputs.push_back(real({s.batch, s.state}));
    cases.push_back(std::move(item));
  }
  return cases;
}

// x, states, weights and biases; the biases are missing in every other case.
std::vector<Case> cells(int count, int states, bool sequence) {
  std::vector<Case> cases;
  for (const Sizes& s : many_sizes()) {
    Case item;
    item.inputs.push_back(
        real(sequence ? Shape{s.steps, s.batch, s.inputs} : Shape{s.batch, s.inputs}));
    for (int i = 0; i < states; ++i) item.inputs.push_back(real({s.batch, s.state}));
    item.inputs.push_back(real({count * s.state, s.inputs}));
    item.inputs.push_back(real({count * s.state, s.state}));
    if (cases.size() % 2 == 0) {
      item.inputs.push_back(real({count * s.state}));
      item.inputs.push_back(real({count * s.state}));
    }
    cases.push_back(std::move(item));
  }
  return cases;
}

ops::RecurrentWeights weights_of(Inputs x, size_t first) {
  const bool biased = x.size() > first + 2;
  return {x[first], x[first + 1], biased ? x[first + 2] : Tensor(),
          biased ? x[first + 3] : Tensor()};
}

Tensor part(Context& cx, const Tensor& gates, int64_t index, const Tensor& state) {
  return ops::slice(cx, gates, -1, index * state.dim(-1), state.dim(-1));
}
Tensor bent(Context& cx, const Tensor& x, Activation curve) { return ops::activate(cx, x, curve); }

Outputs lstm_gates(Context& cx, Inputs x, const Attributes&) {
  const ops::LstmState state = ops::lstm_gates(cx, x[0], x[1]);
  return {state.h, state.c};
}

Outputs lstm_gates_composed(Context& cx, Inputs x, const Attributes&) {
  const auto gate = [&](int64_t index, Activation curve) {
    return bent(cx, part(cx, x[0], index, x[1]), curve);
  };
  const Tensor kept = ops::multiply(cx, gate(1, Activation::kSigmoid), x[1]);
  const Tensor added = ops::multiply(cx, gate(0, Activation::kSigmoid), gate(2, Activation::kTanh));
  const Tensor c = ops::add(cx, kept, added);
  return {ops::multiply(cx, gate(3, Activation::kSigmoid), bent(cx, c, Activation::kTanh)), c};
}

Outputs gru_gates(Context& cx, Inputs x, const Attributes&) {
  return {ops::gru_gates(cx, x[0], x[1], x[2])};
}

Outputs gru_gates_composed(Context& cx, Inputs x, const Attributes&) {
  const Tensor &a = x[0], &b = x[1], &h = x[2];
  const auto sum = [&](int64_t index) {
    return ops::add(cx, part(cx, a, index, h), part(cx, b, index, h));
  };
  const Tensor r = bent(cx, sum(0), Activation::kSigmoid);
  const Tensor z = bent(cx, sum(1), Activation::kSigmoid);
  const Tensor reset = ops::multiply(cx, r, part(cx, b, 2, h));
  const Tensor n = bent(cx, ops::add(cx, part(cx, a, 2, h), reset), Activation::kTanh);
  const Tensor fresh = ops::subtract(cx, n, ops::multiply(cx, z, n));
  return {ops::add(cx, fresh, ops::multiply(cx, z, h))};
}

Outputs lstm_cell(Context& cx, Inputs x, const Attributes&) {
  const ops::LstmState state = ops::lstm_cell(cx, x[0], {x[1], x[2]}, weights_of(x, 3));
  return {state.h, state.c};
}

Outputs gru_cell(Context& cx, Inputs x, const Attributes&) {
  return {ops::gru_cell(cx, x[0], x[1], weights_of(x, 2))};
}

Outputs lstm(Context& cx, Inputs x, const Attributes&) {
  const ops::LstmSteps steps = ops::lstm(cx, x[0], {x[1], x[2]}, weights_of(x, 3));
  return {steps.outputs, steps.last.h, steps.last.c};
}

Outputs gru(Context& cx, Inputs x, const Attributes&) {
  const ops::GruSteps steps = ops::gru(cx, x[0], x[1], weights_of(x, 2));
  return {steps.outputs, steps.last};
}

// What the gates of a step are made of: a product for each.
Tensor gates_of(Context& cx, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return ops::linear(cx, x, weight, bias, ops::WeightLayout::kOutIn);
}

Tensor step_of(Context& cx, const Tensor& x, int64_t step) {
  return ops::reshape(cx, ops::slice(cx, x, 0, step, 1), Shape{x.dim(1), x.dim(2)});
}

// One after the other, with the composed gates.
Outputs lstm_composed(Context& cx, Inputs x, const Attributes& a) {
  const ops::RecurrentWeights w = weights_of(x, 3);
  std::vector<Tensor> outputs;
  Outputs state{x[1], x[2]};
  for (int64_t t = 0; t < x[0].dim(0); ++t) {
    const Tensor gates = ops::add(cx, gates_of(cx, step_of(cx, x[0], t), w.input, w.input_bias),
                                  gates_of(cx, state[0], w.hidden, w.hidden_bias));
    const std::vector<Tensor> now{gates, state[1]};
    state = lstm_gates_composed(cx, now, a);
    outputs.push_back(state[0]);
  }
  return {ops::stack(cx, outputs, 0), state[0], state[1]};
}

Outputs gru_composed(Context& cx, Inputs x, const Attributes& a) {
  const ops::RecurrentWeights w = weights_of(x, 2);
  std::vector<Tensor> outputs;
  Tensor h = x[1];
  for (int64_t t = 0; t < x[0].dim(0); ++t) {
    const std::vector<Tensor> now{gates_of(cx, step_of(cx, x[0], t), w.input, w.input_bias),
                                  gates_of(cx, h, w.hidden, w.hidden_bias), h};
    h = gru_gates_composed(cx, now, a)[0];
    outputs.push_back(h);
  }
  return {ops::stack(cx, outputs, 0), h};
}

}  // namespace

std::vector<Row> recurrent_rows() {
  return {
      {"lstm_gates", lstm_gates, gates(4, 1, 1), lstm_gates_composed},
      {"gru_gates", gru_gates, gates(3, 2, 1), gru_gates_composed},
      {"lstm_cell", lstm_cell, cells(4, 2, false), nullptr, 16},
      {"gru_cell", gru_cell, cells(3, 1, false), nullptr, 16},
      {"lstm", lstm, cells(4, 2, true), lstm_composed, 16},
      {"gru", gru, cells(3, 1, true), gru_composed, 16},
  };
}

}  // namespace weft::op_table
