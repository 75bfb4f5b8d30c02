#include "worker/optimizer/exact_squares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/testing/rank_runner.h"

namespace weft {
namespace {

constexpr int64_t kElements = 100'003;

float value(int64_t i) {
  return std::ldexp(std::sin(static_cast<float>(i * i % 9973)), static_cast<int>(i % 40) - 30);
}

// The elements [first, last), in tensors of at most `run`, on the rank's pool.
ExactSquares squares(Rank& rank, int64_t first, int64_t last, int64_t run) {
  std::vector<Tensor> tensors;
  for (; first < last; first += run) {
    Tensor x = Tensor::empty(*rank.allocator, {std::min(run, last - first)});
    for (int64_t i = 0; i < x.elements(); ++i) x.data<float>()[i] = value(first + i);
    tensors.push_back(std::move(x));
  }
  return exact_squares(rank, tensors, kElements);
}

TEST(ExactSquares, DependOnNoOrder) {
  long double exact = 0;
  for (int64_t i = 0; i < kElements; ++i) {
    exact += static_cast<long double>(value(i)) * value(i);
  }
  ExactSquares one;
  testing::run_ranks(1, [&](Rank& rank) {
    one = squares(rank, 0, kElements, kElements);
    EXPECT_NE(one.lower, 0);
    EXPECT_NEAR(one.upper + one.lower, static_cast<double>(exact),
                4 * std::ldexp(static_cast<double>(exact), -53));
    for (const int threads : {1, 3}) {
      rank.pool = std::make_unique<ThreadPool>(threads);
      for (const int64_t run : {int64_t{7}, int64_t{16384}, int64_t{50'000}}) {
        const ExactSquares cut = squares(rank, 0, kElements, run);
        EXPECT_EQ(cut.upper, one.upper) << run;
        EXPECT_EQ(cut.lower, one.lower) << run;
      }
    }
  });
  for (const int ranks : {2, 3}) {
    testing::run_ranks(ranks, [&](Rank& rank) {
      Communicator& world = rank.mesh.axis(Axis::kWorld);
      const Part own = part_of(kElements, ranks, world.rank());
      const ExactSquares part = squares(rank, own.start, own.start + own.length, 999);
      Tensor sums =
          Tensor::from<double>(*rank.allocator, {2}, std::array<double, 2>{part.upper, part.lower});
      world.all_reduce(sums, ReduceOp::kSum);
      EXPECT_EQ(sums.data<double>()[0], one.upper) << ranks;
      EXPECT_EQ(sums.data<double>()[1], one.lower) << ranks;
    });
  }
}

// One by one, as the tensors' are, and the other way round.
TEST(ExactSquares, OfNumbersThatAreAddedOneByOneDependOnNoOrder) {
  float largest = 0;
  for (int64_t i = 0; i < kElements; ++i) largest = std::max(largest, std::abs(value(i)));
  const SquareCut cut(largest, kElements);
  ExactSquares up, down, whole;
  for (int64_t i = 0; i < kElements; ++i) {
    cut.add(value(i), up);
    cut.add(value(kElements - 1 - i), down);
  }
  testing::run_ranks(1, [&](Rank& rank) { whole = squares(rank, 0, kElements, kElements); });
  EXPECT_NE(up.lower, 0);
  for (const ExactSquares& other : {down, whole}) {
    EXPECT_EQ(up.upper, other.upper);
    EXPECT_EQ(up.lower, other.lower);
  }
}

TEST(ExactSquares, WhatIsNotFiniteIsSoOnEveryRank) {
  for (const float wrong : {HUGE_VALF, std::nanf("")}) {
    testing::run_ranks(2, [&](Rank& rank) {
      Tensor x = Tensor::full(*rank.allocator, {40'000}, 0.5);
      if (rank.mesh.index(Axis::kWorld) == 1) x.data<float>()[39'999] = wrong;
      EXPECT_TRUE(std::isinf(exact_squares(rank, std::array{x}, 80'000).upper));
    });
  }
  testing::run_ranks(2, [](Rank& rank) {
    const ExactSquares none = exact_squares(rank, {}, 10);
    EXPECT_EQ(none.upper, 0);
    EXPECT_EQ(none.lower, 0);
  });
}

}  // namespace
}  // namespace weft
