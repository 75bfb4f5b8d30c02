// Recurrent cells: one product of the state a step, then the gates in one pass. Conventions are
// those of torch.nn.LSTM and GRU.
//
// Legend: T steps, B batch rows, I features of the input, H of the state; G gates, in the order
// that each function names, lie side by side in [.., G H].
#pragma once

#include "kernels/autograd/op.h"

namespace weft::ops {

struct RecurrentWeights {
  Tensor input, hidden;            // [G H, I], [G H, H]
  Tensor input_bias, hidden_bias;  // [G H], or empty handles
};

// ---- long short-term memory (Hochreiter, Schmidhuber 1997, with the forget gate of Gers et al.
// 2000): gates i, f, g, o
struct LstmState {
  Tensor h, c;  // [B, H]
};
// c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c'); gates [.., 4 H], c [.., H].
LstmState lstm_gates(Context& cx, const Tensor& gates, const Tensor& c);
LstmState lstm_cell(Context& cx, const Tensor& x, const LstmState& state,
                    const RecurrentWeights& weights);
struct LstmSteps {
  Tensor outputs;  // h of each step [T, B, H]
  LstmState last;
};
// x [T, B, I]; the inputs of all steps are multiplied at once.
LstmSteps lstm(Context& cx, const Tensor& x, const LstmState& state,
               const RecurrentWeights& weights);

// ---- gated recurrent unit (Cho et al. 2014, the reset gate behind the product): gates r, z, n
// r = sigmoid(a_r + b_r), z = sigmoid(a_z + b_z), n = tanh(a_n + r b_n), h' = (1 - z) n + z h, with
// a from the input and b from the state: [.., 3 H].
Tensor gru_gates(Context& cx, const Tensor& from_input, const Tensor& from_hidden, const Tensor& h);
Tensor gru_cell(Context& cx, const Tensor& x, const Tensor& h, const RecurrentWeights& weights);
struct GruSteps {
  Tensor outputs, last;  // [T, B, H], [B, H]
};
GruSteps gru(Context& cx, const Tensor& x, const Tensor& h, const RecurrentWeights& weights);

}  // namespace weft::ops
