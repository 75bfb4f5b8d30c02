// Which heads a rank has, and the exchange between tokens and heads.
#include "worker/parallel/head_exchange.h"

#include <gtest/gtest.h>

#include "tests/testing/rank_runner.h"
#include "tests/worker/parallel/shards.h"
#include "worker/parallel/head_parts.h"

namespace weft::parallel {
namespace {

using testing::drawn;
using testing::expect_near;

// Every head of queries on one rank, with the head of keys that it reads, evenly grouped.
TEST(HeadParts, EachHeadOnceWithItsKeys) {
  for (const int64_t key_heads : {1, 2, 3, 4, 8}) {
    for (const int64_t group : {1, 2, 3, 4, 7}) {
      const int64_t heads = key_heads * group;
      for (int count = 1; count <= 12; ++count) {
        SCOPED_TRACE(std::to_string(heads) + " over " + std::to_string(key_heads) + " on " +
                     std::to_string(count));
        int64_t next = 0, least = heads, most = 0;
        for (int index = 0; index < count; ++index) {
          const HeadParts parts = head_parts(heads, key_heads, count, index);
          least = std::min(least, parts.queries.length);
          most = std::max(most, parts.queries.length);
          if (parts.queries.length == 0) {
            EXPECT_EQ(parts.keys.length, 0);
            continue;
          }
          EXPECT_EQ(parts.queries.start, next);
          next += parts.queries.length;
          ASSERT_GT(parts.keys.length, 0);
          ASSERT_EQ(parts.queries.length % parts.keys.length, 0);
          const int64_t own_group = parts.queries.length / parts.keys.length;
          for (int64_t i = 0; i < parts.queries.length; ++i) {
            EXPECT_EQ((parts.queries.start + i) / group, parts.keys.start + i / own_group);
          }
        }
        EXPECT_EQ(next, heads);
        if (key_heads % count == 0 ||
            (count % key_heads == 0 && group % (count / key_heads) == 0)) {
          EXPECT_EQ(least, most);  // where it can be even, it is
        }
      }
    }
  }
}

// In blocks each head of queries is on one rank with all heads of keys that its own read.
TEST(HeadParts, InBlocksHeadsAreSpreadEvenly) {
  for (const int64_t key_heads : {1, 2, 3, 5, 8}) {
    for (const int64_t group : {1, 2, 3, 7}) {
      const int64_t heads = key_heads * group;
      for (const int count : {1, 2, 4, 8}) {
        SCOPED_TRACE(std::to_string(heads) + " over " + std::to_string(key_heads) + " on " +
                     std::to_string(count));
        for (int index = 0; index < count; ++index) {
          const HeadParts parts = blocked_head_parts(heads, key_heads, count, index);
          EXPECT_EQ(parts.queries, part_of(heads, count, index));
          const int64_t end = parts.queries.start + parts.queries.length;
          for (int64_t key = 0; key < key_heads; ++key) {
            const bool read =
                std::max(key * group, parts.queries.start) < std::min((key + 1) * group, end);
            const int64_t held = key - parts.keys.start;
            EXPECT_EQ(held >= 0 && held < parts.keys.length, read) << "key " << key;
          }
        }
      }
    }
  }
}

// A head of keys that several ranks have is the first one's, whose part of it counts; and what
// ranks of a row have of a rank's heads is what they would have of all.
TEST(HeadParts, InBlocksEachHeadOfKeysCountsOnce) {
  for (const int64_t key_heads : {1, 2, 3, 5, 8, 11}) {
    for (const int64_t group : {1, 4, 8}) {
      const int64_t heads = key_heads * group;
      for (const int count : {1, 2, 4, 8}) {
        if (heads % count != 0) continue;
        SCOPED_TRACE(std::to_string(heads) + " over " + std::to_string(key_heads) + " on " +
                     std::to_string(count));
        int64_t next = 0;
        for (int index = 0; index < count; ++index) {
          const HeadParts parts = blocked_head_parts(heads, key_heads, count, index);
          const Part counted = counted_key_heads(key_heads, count, index);
          EXPECT_EQ(common_part(counted, parts.keys).length, counted.length);
          EXPECT_EQ(counted.start + counted.length, parts.keys.start + parts.keys.length);
          EXPECT_EQ(counted.start, next);
          next += counted.length;
          for (const int ranks : {1, 2, 4}) {
            const auto row = exchanged_head_parts(heads, key_heads, count, index, ranks);
            for (int rank = 0; rank < ranks; ++rank) {
              const auto [queries, keys] = row[static_cast<size_t>(rank)];
              EXPECT_EQ(queries.length, part_of(parts.queries.length, ranks, rank).length);
              for (int64_t i = queries.start; i < queries.start + queries.length; ++i) {
                const int64_t read = (parts.queries.start + i) / group - parts.keys.start;
                EXPECT_EQ(common_part(keys, {read, 1}).length, 1);
              }
            }
          }
        }
        EXPECT_EQ(next, key_heads);
      }
    }
  }
  EXPECT_TRUE(cuts_keys_evenly(32, 8, 8));
  EXPECT_TRUE(cuts_keys_evenly(8, 1, 8));
  EXPECT_TRUE(cuts_keys_evenly(14, 2, 8));  // on two ranks at most
  EXPECT_FALSE(cuts_keys_evenly(12, 3, 8));
  EXPECT_FALSE(cuts_keys_evenly(12, 6, 8));  // on four ranks
  EXPECT_TRUE(cuts_keys_evenly(12, 6, 2));
  EXPECT_FALSE(cuts_keys_evenly(40, 10, 8));
}

// Every block's heads that read one head of keys are whole terms of its gradient.
TEST(HeadParts, BlocksHaveWholeTerms) {
  EXPECT_EQ(heads_of_term(32, 8, 8), 0);
  EXPECT_EQ(heads_of_term(32, 8, 16), 2);
  EXPECT_EQ(heads_of_term(32, 4, 8), 4);
  EXPECT_EQ(heads_of_term(8, 1, 8), 1);
  EXPECT_EQ(heads_of_term(28, 2, 8), 1);  // blocks of 4, 3, 4 and 3 heads
  EXPECT_EQ(heads_of_term(12, 12, 8), 0);
  EXPECT_EQ(heads_of_term(16, 4, 4), 0);   // a block has all that read a head
  EXPECT_EQ(heads_of_term(40, 10, 8), 1);  // one of five has one reader of the next head of keys
  EXPECT_EQ(heads_of_term(12, 6, 8), 1);
  EXPECT_EQ(heads_of_term(8, 1, 0), 0);  // not in blocks
}

struct Grid {
  std::vector<int64_t> tokens;
  std::vector<Part> heads;
  int64_t all_heads;
};

// This rank's tokens of all heads, or its heads of all tokens, of `whole`.
Tensor part(Context& cx, const Tensor& whole, const Grid& grid, int rank, bool by_tokens) {
  int64_t start = 0;
  for (int r = 0; r < rank; ++r) start += grid.tokens[static_cast<size_t>(r)];
  const auto own = static_cast<size_t>(rank);
  const Tensor some = by_tokens
                          ? ops::slice(cx, whole, 2, start, grid.tokens[own])
                          : ops::slice(cx, whole, 1, grid.heads[own].start, grid.heads[own].length);
  return clone(cx.pool, some);
}

// There and back: every head that n ranks hold comes back n times.
void check(Rank& rank, const Grid& grid) {
  Context cx = rank.context();
  Communicator& world = rank.mesh.axis(Axis::kWorld);
  int64_t all_tokens = 0;
  for (int64_t count : grid.tokens) all_tokens += count;
  const Tensor whole = drawn(cx, {2, grid.all_heads, all_tokens, 3}, 5);
  const HeadExchange exchange{world, grid.tokens, grid.heads, grid.all_heads};
  const Tensor mine = part(cx, whole, grid, world.rank(), true);
  const int64_t before = world.bytes_sent();
  const Tensor heads = exchange.to_heads(cx, mine);
  expect_near(heads, part(cx, whole, grid, world.rank(), false), 0, "by heads");
  int64_t elements = 0, away = 0;
  for (int r = 0; r < world.size(); ++r) {
    const auto other = static_cast<size_t>(r);
    if (r == world.rank()) continue;
    elements += grid.heads[other].length;
    away += grid.tokens[other];
  }
  const auto own = static_cast<size_t>(world.rank());
  const int64_t there = 2 * 3 * 8 * grid.tokens[own] * elements;
  EXPECT_EQ(world.bytes_sent() - before, there);
  const Tensor back = exchange.to_tokens(cx, heads);
  EXPECT_EQ(world.bytes_sent() - before - there, 2 * 3 * 8 * grid.heads[own].length * away);
  Tensor expected = Tensor::zeros(cx.allocator, mine.shape(), DType::kF64);
  for (const Part& held : grid.heads) {
    add_into(cx.pool, ops::slice(cx, mine, 1, held.start, held.length),
             ops::slice(cx, expected, 1, held.start, held.length));
  }
  expect_near(back, expected, 1e-15, "by tokens");
}

TEST(HeadExchange, ThereAndBack) {
  testing::run_ranks(3, [](Rank& rank) {
    check(rank, {{4, 4, 4}, {{0, 2}, {2, 2}, {4, 2}}, 6});
    check(rank, {{5, 0, 2}, {{0, 3}, {3, 1}, {4, 0}}, 4});
    check(rank, {{1, 2, 3}, {{0, 1}, {0, 1}, {1, 1}}, 2});  // a head on two ranks
    check(rank, {{1, 2, 3}, {{0, 2}, {1, 2}, {1, 3}}, 4});  // several
    check(rank, {{2, 2, 2}, {{0, 1}, {0, 1}, {0, 1}}, 1});  // on all
    check(rank, {{2, 2, 2}, {{0, 1}, {0, 0}, {0, 1}}, 1});  // not on a rank between
  });
  testing::run_ranks(1, [](Rank& rank) { check(rank, {{4}, {{0, 2}}, 2}); });
}

}  // namespace
}  // namespace weft::parallel
