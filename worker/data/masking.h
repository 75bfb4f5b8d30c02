// Masked language modelling (Devlin et al. 2019, section 3.1): of the tokens that are no special
// ones, a share is predicted; of these 80 % are replaced by the mask token, 10 % by a random token
// that is no special one, and 10 % stay. Each visit of a sample masks it anew (Liu et al. 2019,
// section 4.1).
//
// Thread safety: const calls from any thread. Ownership: a value.
// Invariants: 1. what becomes of a token follows from key, epoch, sample and place alone, so it is
// the same on every mesh and in a training that is resumed. 2. labels stand at predicted tokens
// only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops/random.h"
#include "proto/base/status.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft {

// A sample in an epoch.
struct Visit {
  int64_t epoch = 0, sample = 0;
  bool operator==(const Visit&) const = default;
};

class Masking {
 public:
  // rate in (0, 1). Error: a tokenizer without a mask token, or of special tokens alone.
  static Result<Masking> create(const Tokenizer& tokenizer, double rate);

  // Of one row: `ids` become what the model sees, `labels` what it is to predict, else kNoLabel.
  void apply(RandomKey key, Visit visit, std::span<int64_t> ids, std::span<int64_t> labels) const;

 private:
  Masking() = default;
  bool is_special(int64_t id) const;
  // The number-th of the tokens that are no special ones.
  int64_t ordinary(int64_t number) const;

  double rate_ = 0;
  int64_t mask_id_ = 0, ordinary_count_ = 0;
  std::vector<int64_t> special_;  // ascending
};

}  // namespace weft
