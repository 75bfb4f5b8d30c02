#include "worker/optimizer/exact_squares.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/cpu/update.h"
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

}  // namespace

ExactSquares exact_squares(Rank& rank, std::span<const Tensor> tensors, int64_t elements) {
  constexpr float kInfinite = std::numeric_limits<float>::infinity();
  const std::unique_ptr<Allocator> host = make_caching_allocator();
  std::vector<Tensor> here;
  for (const Tensor& x : tensors) here.push_back(to_allocator(x, *host));
  const std::vector<Piece> pieces = pieces_of(here);
  std::vector<float> most_of(pieces.size());
  each(*rank.pool, pieces.size(),
       [&](size_t i) { most_of[i] = cpu::update().largest(pieces[i].data, pieces[i].count); });
  float largest = 0;
  for (const float most : most_of) {
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

}  // namespace weft
