// Which tokens of one rank the queries of another can see, as every rank of the sequence axis knows
// without asking: it has the rules of the whole row. Keys may be of another row than the queries.
//
// Thread safety: constant after construction.
#pragma once

#include <optional>
#include <vector>

#include "kernels/attention/attention.h"
#include "worker/parallel/sequence_layout.h"

namespace weft::parallel {

class VisibleTokens {
 public:
  // whole: of all tokens, its tensors [B, queries] and [B, keys].
  VisibleTokens(const attention::Visibility& whole, int64_t rows, int64_t queries, int64_t keys);

  // The part of each run of keys, if any, outside of which no query of these runs sees anything in
  // any row. Positions and documents are judged by their ranges within a run of queries, so that
  // more may be returned than is seen, never less.
  std::vector<Part> of(const std::vector<Part>& keys, const std::vector<Part>& queries) const;

  // This rank's side of the rules: the same visibility, its tensors cut to the tokens of `queries`
  // and of `keys`. Positions are filled in where a rule (or with_positions) needs them.
  attention::Visibility cut(Allocator& allocator, const std::vector<Part>& queries,
                            const std::vector<Part>& keys, bool with_positions) const;

 private:
  struct Range {
    int64_t least = 0, most = 0;
  };
  // Of one run in one row.
  struct Ranges {
    Range position, document;
  };
  // What is told of all queries or of all keys, [rows, tokens] or empty.
  struct Side {
    int64_t tokens = 0;
    std::vector<int64_t> position, document;
  };
  static Ranges ranges(const Side& side, int64_t row, Part run);
  bool may_see(const Ranges& queries, const Ranges& keys) const;
  bool valid(int64_t row, int64_t token) const {
    return key_valid_.empty() || key_valid_[static_cast<size_t>(row * keys_.tokens + token)] != 0;
  }
  // whole: [rows, tokens].
  template <typename T>
  Tensor gathered(Allocator& allocator, const std::vector<T>& whole, int64_t tokens,
                  const std::vector<Part>& runs) const;
  // The same of positions, which count from the start of the row where there are none.
  Tensor positions(Allocator& allocator, const Side& side, const std::vector<Part>& runs) const;
  bool by_position() const {
    return rules_.causal || rules_.window_left >= 0 || rules_.window_right >= 0;
  }

  const attention::Visibility rules_;  // causal and windows; the tensors stand below
  const int64_t rows_;
  const Side queries_, keys_;
  const std::vector<uint8_t> key_valid_;  // [rows, keys] or empty
};

}  // namespace weft::parallel
