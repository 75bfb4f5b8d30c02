#include "worker/data/pair_template.h"

#include <algorithm>
#include <string>

namespace weft {

PairLengths cut_longest_first(PairLengths whole, int64_t room) {
  if (whole.sum() <= room) return whole;
  const int64_t shorter = std::min(whole.first, whole.second);
  // Equal in the end where both lose tokens; the odd one is the longer text's.
  const int64_t less = std::min(shorter, room / 2), more = room - less;
  return whole.first <= whole.second ? PairLengths{less, more} : PairLengths{more, less};
}

Result<PairTemplate> PairTemplate::create(const Tokenizer& tokenizer, int64_t sequence_length) {
  PairTemplate result;
  const auto pieces = tokenizer.pair_pieces();
  if (pieces.empty()) {
    return fail(Status::invalid("text_pair", std::string(tokenizer.type()),
                                "needs a tokenizer whose post_processor makes one row of two "
                                "texts, as that of an encoder does"));
  }
  result.pieces_.assign(pieces.begin(), pieces.end());
  const int64_t around = std::ssize(pieces) - 2;
  result.room_ = sequence_length - around;
  if (result.room_ >= 2) return result;
  return fail(Status::invalid("sequence_length", std::to_string(sequence_length),
                              "must exceed the " + std::to_string(around) +
                                  " tokens that the tokenizer puts around two texts by 2"));
}

bool PairTemplate::typed() const {
  return std::ranges::any_of(pieces_, [](const PairPiece& piece) { return piece.type != 0; });
}

void PairTemplate::append(std::span<const int64_t> first, std::span<const int64_t> second,
                          TokenStore* store) const {
  for (const PairPiece& piece : pieces_) {
    if (piece.text == PairText::kNone) {
      store->push(piece.id);
    } else {
      store->append(piece.text == PairText::kFirst ? first : second);
    }
  }
}

int64_t PairTemplate::second_at(int64_t first) const {
  int64_t at = 0;
  for (const PairPiece& piece : pieces_) {
    if (piece.text == PairText::kSecond) break;
    at += piece.text == PairText::kFirst ? first : 1;
  }
  return at;
}

void PairTemplate::write_types(int64_t first, std::span<int64_t> types) const {
  const int64_t second = std::ssize(types) - (std::ssize(pieces_) - 2) - first;
  auto next = types.begin();
  for (const PairPiece& piece : pieces_) {
    const int64_t length = piece.text == PairText::kNone    ? 1
                           : piece.text == PairText::kFirst ? first
                                                            : second;
    next = std::fill_n(next, length, piece.type);
  }
}

}  // namespace weft
