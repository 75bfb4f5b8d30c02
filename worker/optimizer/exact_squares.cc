#include "worker/optimizer/exact_squares.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/cpu/update.h"
#include "kernels/cuda/backend.h"
#include "kernels/tensor/transfer.h"

namespace weft {
namespace {

constexpr int64_t kPiece = 1 << 14;  // elements

struct Piece {
  const float* data;
  int64_t count;
};

std::vector<Piece> pieces_of(std::span<const Tensor> tensors) {
  std::vector<Piece> pieces;
  for (const Tensor& x : tensors) {
    for (int64_t at = 0; at < x.elements(); at += kPiece) {
      pieces.push_back({x.data<float>() + at, std::min(kPiece, x.elements() - at)});
    }
  }
  return pieces;
}

void each(ThreadPool& pool, size_t count, const std::function<void(size_t)>& body) {
  pool.parallel_for(static_cast<int64_t>(count), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(static_cast<size_t>(i));
  });
}

// The largest |x|; a NaN counts as infinite.
float largest_here(Rank& rank, std::span<const Tensor> tensors) {
  constexpr float kInfinite = std::numeric_limits<float>::infinity();
  if (!rank.allocator->device().is_cpu()) {
    const Tensor largest = Tensor::empty(*rank.allocator, Shape{});
    cuda::backend(rank.context()).largest_size(tensors, largest);
    return static_cast<float>(read_scalar(largest));
  }
  const std::vector<Piece> pieces = pieces_of(tensors);
  std::vector<float> most_of(pieces.size());
  each(*rank.pool, pieces.size(),
       [&](size_t i) { most_of[i] = cpu::update().largest(pieces[i].data, pieces[i].count); });
  float largest = 0;
  for (const float most : most_of) {
    largest = std::isnan(most) ? kInfinite : std::max(largest, most);
  }
  return largest;
}

ExactSquares cut_here(Rank& rank, std::span<const Tensor> tensors, double first, double second) {
  if (!rank.allocator->device().is_cpu()) {
    const Tensor sums = Tensor::empty(*rank.allocator, {2}, DType::kF64);
    cuda::backend(rank.context()).cut_squares(tensors, first, second, sums);
    const std::vector<double> both = sums.to_vector<double>();
    return {both[0], both[1]};
  }
  const std::vector<Piece> pieces = pieces_of(tensors);
  std::vector<ExactSquares> sums(pieces.size());
  each(*rank.pool, pieces.size(), [&](size_t i) {
    cpu::update().cut_squares(pieces[i].data, pieces[i].count, first, second, &sums[i].upper,
                              &sums[i].lower);
  });
  ExactSquares all;
  for (const ExactSquares& sum : sums) {
    all.upper += sum.upper;
    all.lower += sum.lower;
  }
  return all;
}

}  // namespace

// The largest square is below 2^(2 e + 2), e its root's exponent, and 2^places is twice the
// elements at least: the sum of the upper parts is below a third of `first`, of whose last place
// they are multiples; and so with the lower ones.
SquareCut::SquareCut(double largest, int64_t elements) {
  const int places = std::ilogb(static_cast<double>(elements)) + 2;
  first = std::ldexp(1.5, 2 * std::ilogb(largest) + 2 + places);
  second = std::ldexp(first, places - 52);
}

void SquareCut::add(float x, ExactSquares& sums) const {
  const double square = double{x} * double{x};
  const double upper = (square + first) - first;
  sums.upper += upper;
  sums.lower += ((square - upper) + second) - second;
}

ExactSquares exact_squares(Rank& rank, std::span<const Tensor> tensors, int64_t elements) {
  Tensor most =
      Tensor::full(*rank.allocator, {1}, double{largest_here(rank, tensors)}, DType::kF64);
  rank.mesh.axis(Axis::kWorld).all_reduce(most, ReduceOp::kMax);
  const double bound = read_scalar(most);
  if (bound == 0 || std::isinf(bound)) return {bound, 0};
  const SquareCut cut(bound, elements);
  return cut_here(rank, tensors, cut.first, cut.second);
}

}  // namespace weft
