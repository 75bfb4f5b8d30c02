// What the losses over a vocabulary share; not for users of ops.h.
#pragma once

#include <cstdint>

#include "kernels/ops/ops.h"

namespace weft::ops {

// On a GPU with a device_seed in any case.
TokenLoss with_seed(Context& cx, TokenLoss loss);

// By what the gradient for an output gradient of the loss's seed becomes that for dy, a scalar: 1
// where dy is the seed as its type holds it, which seldom is the seed. Waits for a GPU.
double seed_factor(const TokenLoss& loss, const Tensor& dy);
// Turns the gradient for an output gradient of the loss's seed into that for dy, in place.
void reseed(Context& cx, const TokenLoss& loss, const Tensor& dy, const Tensor& gradient);

// The loss of rows of logits, of which this rank holds the columns [shard.first, + width) of the
// vocabulary. With several parts three numbers a row are combined over them (Shoeybi et al. 2019,
// section 3), never the logits.
//
//   loss = lse - (1 - s) logits[label] - s / V sum(logits)
//   d logits = softmax(logits) - (1 - s) one_hot(label) - s / V       (s: loss.smoothing)
//
// Thread safety: the rank's compute thread; combining is a collective. Ownership: refers to `loss`.
class LabelRule {
 public:
  LabelRule(const TokenLoss& loss, int64_t width);

  // Throws StatusError where a label is neither in the vocabulary nor the ignored one. Every rank
  // has the same labels, so either all throw or none does.
  void check(const Tensor& labels) const;

  // The sum of the losses of `rows` rows; logits [rows, width] become their gradients times
  // loss.seed, zeros where the label is ignored.
  template <typename T>
  double loss_and_gradient(Context& cx, T* logits, const int64_t* labels, int64_t rows) const;

 private:
  template <typename T>
  struct Row;

  const TokenLoss& loss_;
  const int64_t width_;
};

}  // namespace weft::ops
