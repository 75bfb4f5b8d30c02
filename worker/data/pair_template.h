// Two texts in one row, as a tokenizer's post-processor puts them.
//
// Thread safety: values and pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/token_store.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft {

struct PairLengths {
  int64_t first = 0, second = 0;
  int64_t sum() const { return first + second; }
};

// How much of two texts stays where there is room for so many tokens: as transformers'
// `longest_first`, token by token off the longer one.
PairLengths cut_longest_first(PairLengths whole, int64_t room);

class PairTemplate {
 public:
  // Error: the tokenizer makes no pairs; no room for a token of each text.
  static Result<PairTemplate> create(const Tokenizer& tokenizer, int64_t sequence_length);

  int64_t room() const { return room_; }  // tokens of both texts
  bool typed() const;                     // a token's type is not 0
  void append(std::span<const int64_t> first, std::span<const int64_t> second,
              TokenStore* store) const;
  // Of a row with so many tokens of the first text: where the second begins.
  int64_t second_at(int64_t first) const;
  // The types of its tokens.
  void write_types(int64_t first, std::span<int64_t> types) const;

 private:
  std::vector<PairPiece> pieces_;
  int64_t room_ = 0;
};

}  // namespace weft
