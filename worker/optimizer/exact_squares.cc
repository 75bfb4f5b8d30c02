#include "worker/optimizer/exact_squares.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/update.h"
#include "kernels/tensor/transfer.h"

namespace weft {

ExactSquares exact_squares(Rank& rank, std::span<const Tensor> tensors, int64_t elements) {
  constexpr float kInfinite = std::numeric_limits<float>::infinity();
  float largest = 0;
  for (const Tensor& x : tensors) {
    const float most = cpu::update().largest(x.data<float>(), x.elements());
    largest = std::isnan(most) ? kInfinite : std::max(largest, most);
  }
  Tensor most = Tensor::full(*rank.allocator, {1}, double{largest}, DType::kF64);
  rank.mesh.axis(Axis::kWorld).all_reduce(most, ReduceOp::kMax);
  const double bound = read_scalar(most);
  if (bound == 0 || std::isinf(bound)) return {bound, 0};
  // The largest square is below 2^(2 e + 2), e its root's exponent, and 2^places is twice the
  // elements at least: the sum of the upper parts is below a third of `first`, of whose last place
  // they are multiples; and so with the lower ones.
  const int places = std::ilogb(static_cast<double>(elements)) + 2;
  const double first = std::ldexp(1.5, 2 * std::ilogb(bound) + 2 + places);
  const double second = std::ldexp(first, places - 52);
  ExactSquares sums;
  for (const Tensor& x : tensors) {
    cpu::update().cut_squares(x.data<float>(), x.elements(), first, second, &sums.upper,
                              &sums.lower);
  }
  return sums;
}

}  // namespace weft
