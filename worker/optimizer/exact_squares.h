// A sum of squares that no order changes, for gradients that ranks share out at any place: each
// square is cut at two places that are the same for all (Demmel and Nguyen 2013), so that the sum
// of either part rounds nowhere.
//
// Thread safety: the rank's compute thread, which shares the work out among its pool; a collective
// over the world.
#pragma once

#include <cstdint>
#include <span>

#include "worker/parallel/rank.h"

namespace weft {

struct ExactSquares {
  double upper = 0, lower = 0;  // exact, and so are their sums over the ranks
};

// The places that squares are cut at of so many numbers, none of whose |x| is above `largest`,
// which is finite and above 0.
struct SquareCut {
  SquareCut(double largest, int64_t elements);
  // Adds the square of x.
  void add(float x, ExactSquares& sums) const;

  double first = 0, second = 0;
};

// Of contiguous F32 tensors. elements: at least as many as all ranks have together. What is cut off
// of a square is below 2^-98 elements^2 times the largest square. An element that is not finite
// makes upper infinite, on every rank.
ExactSquares exact_squares(Rank& rank, std::span<const Tensor> tensors, int64_t elements);

}  // namespace weft
