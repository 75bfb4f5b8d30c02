// Collects deviations on each rank and merges them over the world at the end.
//
// Thread safety: the rank's compute thread. Invariant: every rank calls the same functions in the
// same order, whatever part of a tensor it holds, so that the lists can be merged position by
// position.
#pragma once

#include <string>
#include <vector>

#include "worker/golden/golden.h"

namespace weft::golden {

class Comparer {
 public:
  Comparer(Rank& rank, const Case& golden, DType precision)
      : rank_(rank), golden_(golden), precision_(precision) {}

  // What a differs from b by; in float64 beyond b's rounding.
  double difference(double a, float b) const;
  // A number that every rank has: |a - b| / |b|, |a| where b is 0. Its bar is that of its kind:
  // "loss", "grad_norm", "lr", "norm after".
  void scalar(std::string what, const std::string& kind, double value, double expected);
  // The largest |a - b| of this rank's part of a tensor whose largest |b| is `scale`.
  void part(std::string what, double largest_difference, double scale);
  // This rank's shard of a gradient. One that is absent counts as zeros.
  void gradient(const std::string& name, const Parameter& parameter, const Expected& expected);
  // The gradients of these parameters are 0 in exact arithmetic: compared with the largest of all.
  void zero_gradients(const std::vector<std::string>& names);

  // A collective. Each deviation is the largest over the ranks.
  std::vector<Deviation> finish();

 private:
  // Of a tensor's name or a kind of number.
  double bar(const std::string& kind) const;
  void add(std::string what, double bar, double largest_difference, double scale);

  Rank& rank_;
  const Case& golden_;
  const DType precision_;
  std::vector<Deviation> deviations_;
  std::map<std::string, double> gradients_;  // the largest |a| of this rank's shard
  double largest_gradient_ = 0;              // expected, over all parameters
};

double largest_of(const Expected& expected);

}  // namespace weft::golden
