// Dropout of hidden states, keyed by the tokens' places in the whole batch, so that every mesh
// drops the same.
//
// Thread safety: the rank's compute thread.
#pragma once

#include "worker/models/model.h"

namespace weft {

// Uses of random numbers, each a stream of its own.
enum DropoutUse : uint64_t {
  kEmbeddingDropout,
  kScoreDropout,
  kAttentionDropout,
  kMlpDropout,
  kAdapterDropout,
  kHeadDropout,
  kSourceScoreDropout,
  kSourceDropout,
  kInnerDropout,
  kLastDropout,
  kDistanceDropout
};

// Of this rank's tokens those `among_own`, with features from first_feature on of `features`.
struct DropoutPlace {
  Part among_own;
  int64_t features = 0, first_feature = 0;
};
// x [B, tokens, F]; of a rank with blocks tokens of all rows -> [1, tokens, F]. Only where the
// batch trains.
Tensor token_dropout(Context& cx, const Rank& rank, const TokenBatch& batch, const Tensor& x,
                     double rate, const RandomKey& key, const DropoutPlace& place);

}  // namespace weft
