// A layout of a row's tokens that gives each rank the same number of them and the same share of the
// attention's work: chunks are dealt to the ranks, the dearest first (Graham 1969). Of a causal
// attention to the whole row that is the zigzag layout, rank r with chunks r and 2n-1-r; documents
// and windows make other costs and, where it takes them, more chunks.
//
// Thread safety: pure functions; the same on every rank.
#pragma once

#include <span>
#include <vector>

#include "worker/parallel/sequence_layout.h"

namespace weft::parallel {

// What a model's tokens attend to: those before them or all, at most so far away; -1: no bound.
struct AttentionPattern {
  bool causal = false;
  int64_t window_left = -1, window_right = -1;
};

// The number of keys that each token of a row sees, [tokens]. documents: of the row's tokens, each
// document in one run; empty: one document. valid: 0 where nobody may look; empty: everywhere.
std::vector<int64_t> keys_seen(const AttentionPattern& pattern, int64_t tokens,
                               std::span<const int64_t> documents, std::span<const uint8_t> valid);

// cost: of each token. Ranks have as many tokens as each other, but for the parts of their chunks,
// which differ by one. As few chunks as bring the largest cost to kBalance of the mean, of at least
// kChunkMin tokens where there are more than two a rank; else the most even of those tried.
inline constexpr double kBalance = 1.02;
inline constexpr int64_t kChunkMin = 64;
SequenceLayout balanced_layout(std::span<const int64_t> cost, int ranks);

// The largest share of the cost over the mean one.
double imbalance(const SequenceLayout& layout, std::span<const int64_t> cost);

}  // namespace weft::parallel
