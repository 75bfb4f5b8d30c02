// Which tokens of a row a permutation_lm predicts, and in which order (Yang et al. 2019, section
// 2.2): the last ones, a share of all, of an order that is drawn anew for each visit of a sample,
// all orders of its tokens that are no special ones alike. (Theirs predicted spans of one to five
// tokens; here each token is drawn by itself, as their equation 5 has it.)
//
// Thread safety: const calls from any thread. Ownership: a value.
// Invariants: 1. the order follows from key, epoch, sample and the row's tokens alone, so it is the
// same on every mesh and in a training that is resumed. 2. rows have room for as many predictions,
// whatever their length. 3. a row with at least two tokens, one of them no special one, has a
// prediction and a token that is none.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops/random.h"
#include "worker/data/masking.h"
#include "worker/data/rows.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft {

class Permutation {
 public:
  // rate in (0, 1); tokens: of the longest row, at least 2.
  Permutation(const Tokenizer& tokenizer, double rate, int64_t tokens);

  // For how many a row has room: as many as one of all tokens has (permuted_tokens).
  int64_t predictions() const { return predictions_; }
  // Adds a row's labels, places and order; ids: all that it has but padding.
  void add(RandomKey key, Visit visit, std::span<const int64_t> ids, TaskRows& rows) const;

 private:
  const double rate_;
  const int64_t predictions_;
  const std::vector<int64_t> special_;  // ascending
};

}  // namespace weft
