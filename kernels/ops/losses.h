// Losses. Each gives a sum over elements or rows, so that a caller who knows how many there are in
// the whole batch divides by that number; weights are constants.
#pragma once

#include "kernels/autograd/op.h"

namespace weft::ops {

// ---- regression (losses.cc): equal shapes -> scalar
Tensor squared_error_sum(Context& cx, const Tensor& x, const Tensor& target);   // (x - t)^2
Tensor absolute_error_sum(Context& cx, const Tensor& x, const Tensor& target);  // |x - t|
// e = x - t: e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2) (Huber 1964).
Tensor huber_sum(Context& cx, const Tensor& x, const Tensor& target, double delta);

// ---- classification
// Binary cross-entropy of logits x and targets in [0, 1]: -(w t log s + (1 - t) log(1 - s)),
// s = sigmoid(x), computed without overflow; positive_weight w broadcasts to x, or is an empty
// handle (1).
Tensor binary_cross_entropy_sum(Context& cx, const Tensor& x, const Tensor& target,
                                const Tensor& positive_weight = Tensor());
// Sum of t (log t - x) with log-probabilities x and probabilities t (Kullback, Leibler 1951); t = 0
// adds 0.
Tensor kl_divergence_sum(Context& cx, const Tensor& x, const Tensor& target);

// ---- connectionist temporal classification (Graves et al. 2006) (ctc.cc)
// logits [T, B, C] (log-softmax is part of it), targets int64 [B, S], input_lengths and
// target_lengths int64 [B] -> -log p(targets) of each row [B]; infinity where no path exists (its
// gradient is 0). Errors (Status): a length outside of [0, T] or [0, S], a target outside of [0, C)
// or equal to `blank`.
Tensor ctc_loss(Context& cx, const Tensor& logits, const Tensor& targets,
                const Tensor& input_lengths, const Tensor& target_lengths, int64_t blank = 0);

}  // namespace weft::ops
