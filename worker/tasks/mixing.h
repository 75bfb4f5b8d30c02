// Which task has the next step, so that the shares of steps follow the weights: smooth weighted
// round-robin. Every task earns its weight's share a step; the one with the most credit runs and
// pays one. After n steps a task has had its share of n to within one step.
//
// Thread safety: a value. Invariants: 1. the credits sum to 0. 2. the order depends on the weights
// and the credits only, so a checkpoint that holds the credits goes on exactly.
#pragma once

#include <span>
#include <vector>

namespace weft::tasks {

class Mixing {
 public:
  explicit Mixing(std::vector<double> weights);  // each > 0
  int next();
  std::span<const double> credits() const { return credits_; }
  void restore(std::vector<double> credits);

 private:
  std::vector<double> shares_, credits_;
};

}  // namespace weft::tasks
