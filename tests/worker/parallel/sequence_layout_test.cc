#include "worker/parallel/sequence_layout.h"

#include <gtest/gtest.h>

#include <vector>

namespace weft::parallel {

namespace {

// Every token once, ascending on each rank, found where it is.
void expect_whole(const SequenceLayout& layout) {
  std::vector<int> holders(static_cast<size_t>(layout.tokens()), -1);
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    int64_t place = 0, last = -2;
    for (const Part& run : layout.runs(rank)) {
      EXPECT_GT(run.start, last + 1);  // no two runs that are one
      for (int64_t token = run.start; token < run.start + run.length; ++token, ++place) {
        EXPECT_EQ(holders[static_cast<size_t>(token)], -1);
        holders[static_cast<size_t>(token)] = rank;
        EXPECT_EQ(layout.find(rank, token), place);
        last = token;
      }
    }
    EXPECT_EQ(place, layout.length(rank));
  }
  for (int64_t token = 0; token < layout.tokens(); ++token) {
    for (int rank = 0; rank < layout.ranks(); ++rank) {
      const bool held = holders[static_cast<size_t>(token)] == rank;
      EXPECT_EQ(layout.find(rank, token) >= 0, held) << token << " on " << rank;
    }
  }
}

TEST(SequenceLayout, PartsAndGroups) {
  for (const int64_t tokens : {0, 1, 5, 24, 29}) {
    for (const int ranks : {1, 2, 3, 4, 6}) {
      const SequenceLayout whole = SequenceLayout::contiguous(tokens, ranks);
      expect_whole(whole);
      for (const int size : {1, 2, 3}) {
        const SequenceLayout parts = whole.divided(size);
        expect_whole(parts);
        ASSERT_EQ(parts.ranks(), ranks * size);
        const SequenceLayout again = parts.grouped(size);
        for (int rank = 0; rank < ranks; ++rank) {
          EXPECT_EQ(again.runs(rank), whole.runs(rank));
          EXPECT_EQ(parts.length(rank * size), part_of(whole.length(rank), size, 0).length);
        }
      }
    }
  }
}

TEST(SequenceLayout, RunsOfAPart) {
  const SequenceLayout layout(12, {{{0, 2}, {2, 1}, {9, 3}}, {{3, 6}}});
  EXPECT_EQ(layout.runs(0), (std::vector<Part>{{0, 3}, {9, 3}}));
  EXPECT_EQ(layout.runs(0, {2, 2}), (std::vector<Part>{{2, 1}, {9, 1}}));
  EXPECT_EQ(layout.runs(0, {3, 3}), (std::vector<Part>{{9, 3}}));
  EXPECT_TRUE(layout.runs(0, {6, 0}).empty());
  EXPECT_EQ(layout.find(0, 10), 4);
  EXPECT_EQ(layout.find(1, 10), -1);
}

TEST(SequenceLayoutDeathTest, TokensThatNobodyOrTwoHold) {
  EXPECT_DEATH(SequenceLayout(3, {{{0, 1}}, {{2, 1}}}), "2 of 3");
  EXPECT_DEATH(SequenceLayout(3, {{{1, 2}, {0, 1}}}), "behind");
}

}  // namespace
}  // namespace weft::parallel
