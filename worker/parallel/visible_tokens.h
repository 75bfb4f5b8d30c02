// Which tokens of one rank the queries of another can see, as every rank of the sequence axis knows
// without asking: it has the rules of the whole row.
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
  // whole: of all tokens of the row, its tensors [B, tokens].
  VisibleTokens(const attention::Visibility& whole, int64_t rows, int64_t tokens);

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
  Ranges ranges(const std::vector<int64_t>& position, const std::vector<int64_t>& document,
                int64_t row, Part run) const;
  bool may_see(const Ranges& queries, const Ranges& keys) const;
  bool valid(int64_t row, int64_t token) const {
    return key_valid_.empty() || key_valid_[static_cast<size_t>(at(row, token))] != 0;
  }
  int64_t at(int64_t row, int64_t token) const { return row * tokens_ + token; }
  template <typename T>
  Tensor gathered(Allocator& allocator, const std::vector<T>& whole,
                  const std::vector<Part>& runs) const;
  // The same of positions, which count from the start of the row where there are none.
  Tensor positions(Allocator& allocator, const std::vector<int64_t>& whole,
                   const std::vector<Part>& runs) const;
  bool by_position() const {
    return rules_.causal || rules_.window_left >= 0 || rules_.window_right >= 0;
  }

  const attention::Visibility rules_;  // causal and windows; the tensors stand below
  const int64_t rows_, tokens_;
  // [rows, tokens] or empty.
  std::vector<int64_t> query_position_, key_position_, query_document_, key_document_;
  std::vector<uint8_t> key_valid_;
};

}  // namespace weft::parallel
