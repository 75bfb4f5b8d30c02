#include "worker/parallel/sequence_choice.h"

#include <algorithm>

namespace weft::parallel {
namespace {

// Every rank of a group has as many heads as the others, and of keys as many.
bool splits_evenly(const AttentionHeads& heads, int ulysses) {
  return heads.queries % ulysses == 0 && (heads.keys % ulysses == 0 || ulysses % heads.keys == 0);
}

}  // namespace

double elements_sent(const AttentionHeads& heads, int ranks, int ulysses, bool causal, bool half) {
  const int others = ulysses - 1, rings = ranks / ulysses - 1;
  const double own_queries = static_cast<double>(heads.queries) / ulysses;
  const double own_keys = std::max(static_cast<double>(heads.keys) / ulysses, 1.0);
  const bool shared = heads.keys < ulysses;  // their gradients are terms, which travel wide
  const double wide = half ? 2 : 1;
  const double exchanged = others * (4 * own_queries + own_keys * (2 + 2 * (shared ? wide : 1)));
  const double round = rings * own_keys * ulysses * (4 + 2 * wide);
  return exchanged + round * (causal ? 0.75 : 1);
}

int least_sent(const AttentionHeads& heads, int ranks, bool causal, bool half) {
  int best = 1;
  for (int ulysses = 2; ulysses <= ranks; ++ulysses) {
    if (ranks % ulysses != 0 || !splits_evenly(heads, ulysses)) continue;
    if (elements_sent(heads, ranks, ulysses, causal, half) <
        elements_sent(heads, ranks, best, causal, half)) {
      best = ulysses;
    }
  }
  return best;
}

}  // namespace weft::parallel
