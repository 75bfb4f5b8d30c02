#include "worker/parallel/shared_heads.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/tensor/strided.h"
#include "tests/testing/rank_runner.h"
#include "worker/admission/traffic.h"
#include "worker/parallel/tree_sum.h"

namespace weft::parallel {
namespace {

constexpr int64_t kRows = 2, kTokens = 3, kFeatures = 5;

// What rank `rank` has of a head's element i: sums of such depend on their order.
float term(int64_t rank, int64_t head, int64_t i) {
  const auto place = static_cast<float>(13 * rank + 7 * i + 29 * head + 1);
  return std::ldexp(std::sin(place), static_cast<int>((5 * rank + i + head) % 11));
}

Tensor terms_of(Rank& rank, const Part& heads) {
  Tensor x = Tensor::empty(*rank.allocator, {kRows, heads.length, kTokens, kFeatures});
  float* to = x.data<float>();
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t head = heads.start; head < heads.start + heads.length; ++head) {
      for (int64_t i = 0; i < kTokens * kFeatures; ++i) {
        *to++ = term(rank.mesh.index(Axis::kWorld), head, row * kTokens * kFeatures + i);
      }
    }
  }
  return x;
}

// The tree over the ranks that have the head.
float expected(const std::vector<Part>& heads, int64_t head, int64_t i) {
  std::vector<char> present;
  std::vector<float> nodes;
  for (int64_t rank = 0; rank < std::ssize(heads); ++rank) {
    const Part& own = heads[static_cast<size_t>(rank)];
    present.push_back(head >= own.start && head < own.start + own.length ? 1 : 0);
    nodes.push_back(term(rank, head, i));
  }
  const int64_t sum = merge_tree(present, [&](int64_t into, int64_t from) {
    nodes[static_cast<size_t>(into)] += nodes[static_cast<size_t>(from)];
  });
  return nodes[static_cast<size_t>(sum)];
}

TEST(SharedHeads, AreSummedWhereverTheyAre) {
  const std::vector<std::vector<Part>> spreads = {
      {{0, 1}, {0, 2}, {1, 2}, {2, 1}},  // of 12 heads with 3 of keys
      {{0, 3}, {2, 3}, {5, 3}, {7, 3}},  // of 40 with 10
      {{0, 1}, {0, 1}, {0, 1}, {0, 1}}, {{0, 1}, {0, 1}, {1, 1}, {1, 1}},
      {{0, 2}, {1, 1}, {1, 1}, {1, 2}},  // one head on all, others on one
      {{0, 1}, {1, 1}, {2, 1}, {3, 1}}};
  for (const std::vector<Part>& heads : spreads) {
    testing::run_ranks(4, [&](Rank& rank) {
      Context cx = rank.context();
      Communicator& world = rank.mesh.axis(Axis::kWorld);
      const Part& own = heads[static_cast<size_t>(world.rank())];
      const int64_t before = world.bytes_sent(), elements = kRows * kTokens * kFeatures;
      const Tensor sums = sum_shared_heads(cx, world, terms_of(rank, own), heads);
      int64_t bytes = 0, at = 0;
      const std::vector<float> values = as_contiguous(cx.pool, sums).to_vector<float>();
      for (int64_t row = 0; row < kRows; ++row) {
        for (int64_t head = own.start; head < own.start + own.length; ++head) {
          for (int64_t i = 0; i < kTokens * kFeatures; ++i, ++at) {
            EXPECT_EQ(values[static_cast<size_t>(at)],
                      expected(heads, head, row * kTokens * kFeatures + i));
          }
        }
      }
      for (int64_t head = own.start; head < own.start + own.length; ++head) {
        const Part ranks = ranks_with(heads, head);
        const auto count = static_cast<int>(ranks.length);
        const auto index = static_cast<int>(world.rank() - ranks.start);
        bytes += scatter_traffic(elements, 4, count, index).bytes +
                 gather_traffic(elements, 4, count, index).bytes;
      }
      EXPECT_EQ(world.bytes_sent() - before, bytes);
      EXPECT_EQ(shares_heads(heads, world.rank()), bytes > 0);
    });
  }
}

}  // namespace
}  // namespace weft::parallel
