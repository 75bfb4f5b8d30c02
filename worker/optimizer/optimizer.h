// AdamW: Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019), in the
// arithmetic of torch.optim.AdamW.
//
//   p -= rate * decay * p                        where info.decay
//   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   p -= rate / (1 - b1^n) * m / (sqrt(v) / sqrt(1 - b2^n) + epsilon)
// where n counts the updates of p, this one included.
//
// Thread safety: the rank's compute thread. Ownership: owns the moments; shares the parameters'
// tensors. Invariants: 1. a parameter without a gradient is left as it is and its count of updates
// stands still (the head of another task). 2. moments have the shard's shape, fp32.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/models/parameter.h"
#include "worker/parallel/rank.h"

namespace weft {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
};

class AdamW {
 public:
  // Moments start at 0.
  AdamW(Rank& rank, std::vector<Parameter> parameters, AdamWOptions options);

  // One update from the gradients times `gradient_scale` (the clipping factor), which it clears.
  void step(double learning_rate, double gradient_scale = 1.0);

  // State of parameters()[i], to be saved and restored in place.
  struct State {
    Tensor first_moment, second_moment;
    int64_t updates = 0;
  };
  std::vector<State>& states() { return states_; }
  std::vector<Parameter>& parameters() { return parameters_; }

 private:
  void update(size_t index, const Tensor& gradient, double rate, double gradient_scale);

  Rank& rank_;
  std::vector<Parameter> parameters_;
  std::vector<State> states_;
  const AdamWOptions options_;
};

}  // namespace weft
