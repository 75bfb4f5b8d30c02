#include "worker/parallel/tree_sum.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/testing/rank_runner.h"

namespace weft::parallel {
namespace {

// What rank `rank` has of element i: sums of such depend on their order.
float term(int rank, int64_t i) {
  return std::ldexp(std::sin(static_cast<float>(13 * rank + 7 * i + 1)), (5 * rank + int(i)) % 11);
}

// The tree over ranks [first, last), halves at a time.
float tree(int first, int last, int64_t i) {
  if (last - first == 1) return term(first, i);
  const int middle = first + (last - first) / 2;
  return tree(first, middle, i) + tree(middle, last, i);
}

Tensor terms(Rank& rank, int64_t rows) {
  Tensor x = Tensor::empty(*rank.allocator, {rows, 3});
  for (int64_t i = 0; i < x.elements(); ++i) {
    x.data<float>()[i] = term(rank.mesh.index(Axis::kWorld), i);
  }
  return x;
}

TEST(TreeSum, AddsHalvesOfTheRanks) {
  for (const int ranks : {1, 2, 4, 8}) {
    testing::run_ranks(ranks, [&](Rank& rank) {
      Context cx = rank.context();
      Communicator& world = rank.mesh.axis(Axis::kWorld);
      const Tensor whole = tree_sum(cx, world, terms(rank, 5));  // parts that differ by one
      bool otherwise = false;                                    // another order shows
      for (int64_t i = 0; i < 15; ++i) {
        EXPECT_EQ(whole.data<float>()[i], tree(0, ranks, i)) << ranks << " ranks, " << i;
        float in_order = 0;
        for (int r = 0; r < ranks; ++r) in_order += term(r, i);
        otherwise |= in_order != tree(0, ranks, i);
      }
      EXPECT_EQ(otherwise, ranks > 2);
      const Tensor own = tree_scatter(cx, world, terms(rank, 16));
      ASSERT_EQ(own.shape(), (Shape{16 / ranks, 3}));
      for (int64_t i = 0; i < own.elements(); ++i) {
        EXPECT_EQ(own.data<float>()[i], tree(0, ranks, i + world.rank() * own.elements()));
      }
      // Neighbours that hold the same count once.
      for (int copies = 1; copies <= ranks; copies *= 2) {
        Tensor held = terms(rank, 16);
        for (int64_t i = 0; i < held.elements(); ++i) {
          held.data<float>()[i] = term(world.rank() / copies, i);
        }
        std::vector<char> present;
        for (int r = 0; r < ranks; ++r) present.push_back(r % copies == 0 ? 1 : 0);
        const Tensor once = tree_scatter(cx, world, held, present);
        for (int64_t i = 0; i < once.elements(); ++i) {
          EXPECT_EQ(once.data<float>()[i],
                    tree(0, ranks / copies, i + world.rank() * once.elements()));
        }
      }
      double expected = 0;
      for (int r = 0; r < ranks; ++r) expected += r + 1;
      EXPECT_EQ(tree_sum(cx, world, world.rank() + 1.0), expected);
    });
  }
}

// Where all nodes of one half are absent, the other half is the sum.
TEST(MergeTree, LeavesOutWhatIsAbsent) {
  const auto merged = [](const std::vector<char>& present) {
    std::vector<std::string> nodes;
    for (size_t i = 0; i < present.size(); ++i) nodes.push_back(std::to_string(i));
    const int64_t sum = merge_tree(present, [&](int64_t into, int64_t from) {
      std::string& node = nodes[static_cast<size_t>(into)];
      node = "(" + node + " " + nodes[static_cast<size_t>(from)] + ")";
    });
    return sum < 0 ? "nothing" : nodes[static_cast<size_t>(sum)];
  };
  EXPECT_EQ(merged({1, 1, 1, 1}), "((0 1) (2 3))");
  EXPECT_EQ(merged({0, 1, 1, 1}), "(1 (2 3))");
  EXPECT_EQ(merged({0, 1, 0, 1}), "(1 3)");
  EXPECT_EQ(merged({0, 0, 1, 1, 1, 0, 0, 0}), "((2 3) 4)");
  EXPECT_EQ(merged({0, 0, 0, 1}), "3");
  EXPECT_EQ(merged({0, 0}), "nothing");
  EXPECT_EQ(merged({}), "nothing");
}

TEST(TreeSum, SendsItsFormula) {
  testing::run_ranks(4, [](Rank& rank) {
    Context cx = rank.context();
    Communicator& world = rank.mesh.axis(Axis::kWorld);
    const int64_t before = world.bytes_sent();
    (void)tree_sum(cx, world, terms(rank, 8));
    EXPECT_EQ(world.bytes_sent() - before, 2 * 24 * 4 * 3 / 4);
  });
}

}  // namespace
}  // namespace weft::parallel
