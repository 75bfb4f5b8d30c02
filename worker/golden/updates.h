// The updates of a golden case's training: the product's AdamW, or, in float64, which that does not
// keep, AdamW by its definition (Loshchilov and Hutter 2019, algorithm 2).
//
// Thread safety: the rank's compute thread. Ownership: refers to rank and replica.
#pragma once

#include <memory>

#include "worker/golden/replica.h"

namespace weft::golden {

class Updates {
 public:
  virtual ~Updates() = default;
  // Of the gradients on the parameters, over all ranks.
  virtual double gradient_norm() = 0;
  // One update; takes the gradients off the parameters.
  virtual void step(double rate, double gradient_scale) = 0;
  // The parameters, in the order of Replica::handles, and the numbers that are updated of one.
  virtual const std::vector<Parameter>& parameters() = 0;
  virtual std::vector<double> master(size_t parameter) = 0;
};

// The parameters become those of the precision, kF32, kBF16 or, on one rank, kF64.
std::unique_ptr<Updates> make_updates(Rank& rank, Replica& replica, const AdamWOptions& options,
                                      DType precision);

}  // namespace weft::golden
