// How many ranks of the sequence axis exchange heads: what sends least.
//
// Thread safety: pure functions; the same on every rank.
#pragma once

#include <cstdint>

namespace weft::parallel {

// Of one rank of the tensor axis.
struct AttentionHeads {
  int64_t queries = 1, keys = 1;
};

// Elements that a rank of `ranks` sends for each token of its own and each feature of a head, in
// one layer's forward and backward pass, where groups of `ulysses` exchange heads and the groups
// form rings (docs/PERFORMANCE.md derives it). Half types: gradients of keys and values on a ring
// weigh as much as two.
double elements_sent(const AttentionHeads& heads, int ranks, int ulysses, bool causal, bool half);

// The divisor of `ranks`, of those that split the heads evenly, that sends least; of equal ones the
// smallest, whose ring is the longest and hides behind arithmetic.
int least_sent(const AttentionHeads& heads, int ranks, bool causal, bool half);

}  // namespace weft::parallel
