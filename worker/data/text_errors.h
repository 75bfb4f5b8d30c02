// How far a text is from the one that it should be: the fewest words, or characters, that are to be
// put in, taken out or replaced (Levenshtein 1966). Over a corpus, errors and what they are of are
// summed before they are divided, as jiwer and Hugging Face's evaluate do for word and character
// error rates.
//
// Thread safety: values. Ownership: values.
#pragma once

#include <cstdint>
#include <string_view>

namespace weft {

struct ErrorSums {
  int64_t word_errors = 0, words = 0;            // words of the references, at white space
  int64_t character_errors = 0, characters = 0;  // code points of these, without space around

  void add(std::string_view reference, std::string_view found);
  // May be above 1. Of nothing: 0.
  double word_error_rate() const;
  double character_error_rate() const;
};

}  // namespace weft
