// Hard attention (Xu et al. 2015, section 4.1): a query looks at one key, drawn from the softmax of
// its scores. The draw has no derivative; two estimators of the gradient stand in for it.
//
// Legend: B batch rows, Tq queries, Tk keys, Dv features of a value.
#pragma once

#include "kernels/attention/scores.h"
#include "kernels/ops/ops.h"

namespace weft::attention {

struct Choice {
  Tensor index;            // int64 [B, Tq]: the key that was drawn; -1 where none is visible
  Tensor weights;          // [B, Tq, Tk]: what it was drawn from; zeros where none is visible
  Tensor log_probability;  // [B, Tq] of the draw, differentiable; 0 where none is visible
  Tensor entropy;          // [B, Tq] of the weights, differentiable; 0 where none is visible
};
// scores [B, Tq, Tk]. The uniform number of a query is that of its index in the global [B, Tq]
// (ops::GlobalIndex), so that every mesh draws the same.
Choice choose(Context& cx, const Tensor& scores, const Tensor& visible, RandomKey key,
              const ops::GlobalIndex& where);

// The draw alone: int64 [.., Tq] from scores [.., Tq, Tk], of which -infinity is never drawn; -1
// where all are. By the inverse of the cumulative sum, in double. No gradient.
Tensor draw(Context& cx, const Tensor& scores, RandomKey key, const ops::GlobalIndex& where);

// The value that was drawn: values [B, Tk, Dv], index [B, Tq] -> [B, Tq, Dv], zeros for -1. The
// gradient reaches the values; that of the scores is estimated by reinforce().
Tensor chosen_values(Context& cx, const Tensor& values, const Tensor& index);

// The draw as one-hot weights [B, Tq, Tk], zeros for -1, whose gradient is taken as that of the
// weights (Bengio et al. 2013, straight-through): biased, of low variance.
Tensor straight_through(Context& cx, const Tensor& weights, const Tensor& index);

// The score-function estimator (Williams 1992): a scalar whose gradient is
// sum of (loss - baseline) d log_probability, an unbiased one of the sum of expected losses for any
// baseline that does not depend on the draw. log_probability, loss: one shape; only the former gets
// a gradient. Add it to the loss itself, whose gradient reaches what does not go through the draw.
Tensor reinforce(Context& cx, const Tensor& log_probability, const Tensor& loss, double baseline);

// The moving average of Xu et al. 2015: b := decay b + (1 - decay) mean loss. Every rank gives the
// global mean. Thread safety: a value.
class MovingBaseline {
 public:
  explicit MovingBaseline(double decay = 0.9) : decay_(decay) {}
  double value() const { return value_; }
  void update(double mean_loss) { value_ = decay_ * value_ + (1 - decay_) * mean_loss; }

 private:
  const double decay_;
  double value_ = 0;
};

}  // namespace weft::attention
