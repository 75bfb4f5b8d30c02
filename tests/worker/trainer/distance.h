// How far two runs of one training are from each other, beside how far one rank is from itself when
// only the order of its sums changes (rows one by one instead of together, or the sums cut into
// blocks): that is the error that the arithmetic has by itself, and the measure of what a mesh may
// add.
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/worker/trainer/topology_run.h"

namespace weft::testing {

// Relative: of losses and norms the largest over the steps, of gradients the largest over the
// parameters, each by its norm, of weights that of all of them together (a bias of keys has no
// gradient but rounding, which AdamW makes steps of; it is told by the norm of all gradients). Sums
// in float64. Gradients are the first
// moments: after one step the gradient times a constant.
struct Distance {
  double losses = 0, norms = 0, gradients = 0, weights = 0;
};

struct Squares {
  double apart = 0, size = 0;
  double relative() const { return std::sqrt(apart / size); }
};

inline Squares squares(const std::vector<float>& a, const std::vector<float>& b) {
  Squares sum;
  for (size_t i = 0; i < a.size(); ++i) {
    sum.apart += std::pow(double{a[i]} - double{b[i]}, 2);
    sum.size += std::pow(double{a[i]}, 2);
  }
  return sum;
}

inline double farthest(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(a[i] - b.at(i)) / std::abs(a[i]));
  }
  return most;
}

// A bias that moves all scores of a query alike, so that no weight of attention sees it.
inline bool is_bias_of_keys(const std::string& name) {
  return name.ends_with(".key.bias") || name.ends_with(".k_lin.bias");
}

inline Distance distance(const Trace& a, const Trace& b) {
  Distance all{farthest(a.losses, b.losses), farthest(a.norms, b.norms), 0, 0};
  Squares weights, of_keys;
  for (const auto& [name, values] : a.weights) {
    const Squares own = squares(values, b.weights.at(name));
    weights = {weights.apart + own.apart, weights.size + own.size};
    const Squares gradient = squares(a.first_moments.at(name), b.first_moments.at(name));
    of_keys.size += gradient.size;
    if (is_bias_of_keys(name)) {
      of_keys.apart = std::max(of_keys.apart, gradient.apart);
    } else {
      all.gradients = std::max(all.gradients, gradient.relative());
    }
  }
  all.gradients = std::max(all.gradients, of_keys.relative());
  all.weights = weights.relative();
  return all;
}

inline Distance farther(const Distance& a, const Distance& b) {
  return {std::max(a.losses, b.losses), std::max(a.norms, b.norms),
          std::max(a.gradients, b.gradients), std::max(a.weights, b.weights)};
}

// What is further apart than `times` the own error, with the numbers; "": nothing.
inline std::string beyond(const Distance& apart, const Distance& own, double times) {
  std::string what;
  const auto check = [&](const char* name, double value, double error) {
    const double bar = times * error + 16 * 0x1p-24;
    if (!(value <= bar)) {
      what += std::string(" ") + name + " " + std::to_string(value / bar) + " of the bar";
    }
  };
  check("losses", apart.losses, own.losses);
  check("norms", apart.norms, own.norms);
  check("weights", apart.weights, own.weights);
  check("gradients", apart.gradients, own.gradients);
  return what;
}

}  // namespace weft::testing
