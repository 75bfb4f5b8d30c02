// AdamW: Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019), in the
// arithmetic of torch.optim.AdamW.
//
//   p -= rate * decay * p                        where info.decay
//   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   p -= rate / (1 - b1^n) * m / (sqrt(v) / sqrt(1 - b2^n) + epsilon)
// where n counts the updates of p, this one included.
//
// Masters and moments lie in flat fp32 buffers, one behind the other in the order of the
// parameters; what the forward pass computes with is the master itself or its rounding to a half
// type. Gradients stay where the backward pass put them: a flat buffer of theirs would cost a copy
// of each and could not lend its memory to activations.
//
// Thread safety: the rank's compute thread. Ownership: owns masters and moments; the parameters'
// handles are rebound to them. Invariants: 1. a parameter without a gradient is left as it is and
// its count of updates stands still (the head of another task). 2. masters and moments have the
// shard's shape, fp32. 3. a value of a half type is its master rounded, after each step and
// round_values.
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
  // The parameters' values, fp32, become the masters; from then on they are of dtype `values`
  // (fp32 or a half type). Moments start at 0.
  AdamW(Rank& rank, std::vector<Parameter> parameters, AdamWOptions options,
        DType values = DType::kF32);

  // One update from the gradients times `gradient_scale` (the clipping factor), which it clears.
  void step(double learning_rate, double gradient_scale = 1.0);

  // State of parameters()[i], to be saved and restored in place.
  struct State {
    Tensor master, first_moment, second_moment;
    int64_t updates = 0;
  };
  std::vector<State>& states() { return states_; }
  std::vector<Parameter>& parameters() { return parameters_; }
  // The values follow masters that were written to.
  void round_values();

 private:
  struct Update;  // what one step does to one parameter
  Update update_of(size_t index, double rate, double gradient_scale);
  void apply(const Update& update, int64_t begin, int64_t end) const;

  Rank& rank_;
  std::vector<Parameter> parameters_;
  std::vector<State> states_;
  const AdamWOptions options_;
};

// The parameters' values rounded to a half type, without masters: for a forward and backward pass
// alone.
void round_parameters(Rank& rank, std::span<Parameter> parameters, DType dtype);

}  // namespace weft
