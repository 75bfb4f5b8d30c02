// Word and character error rates, against textbook distances and what jiwer gives.
#include <gtest/gtest.h>

#include "worker/data/text_errors.h"

namespace weft {
namespace {

ErrorSums of(std::string_view reference, std::string_view found) {
  ErrorSums sums;
  sums.add(reference, found);
  return sums;
}

TEST(TextErrors, AreTheFewestChanges) {
  EXPECT_EQ(of("kitten", "sitting").character_errors, 3);
  EXPECT_EQ(of("intention", "execution").character_errors, 5);
  EXPECT_EQ(of("abc", "").character_errors, 3);
  EXPECT_EQ(of("", "abc").character_errors, 3);
  EXPECT_EQ(of("flaw", "lawn").character_errors, 2);
  const ErrorSums words = of("the cat sat on the mat", "the cat on a mat mat");
  EXPECT_EQ(words.word_errors, 3);
  EXPECT_EQ(words.words, 6);
}

TEST(TextErrors, SpaceAroundAndBetweenWordsCountsOnce) {
  EXPECT_EQ(of("  one \t two\n", "one two").word_errors, 0);
  EXPECT_EQ(of("  one", "one ").character_errors, 0);
  EXPECT_EQ(of("one two", "one  two").character_errors, 1);
}

TEST(TextErrors, CharactersAreCodePoints) {
  const ErrorSums sums = of("\xc3\xa4\xe4\xb8\xad", "a\xe4\xb8\xad");  // umlaut and ideograph
  EXPECT_EQ(sums.character_errors, 1);
  EXPECT_EQ(sums.characters, 2);
}

TEST(TextErrors, RatesAreOfTheWholeCorpus) {
  ErrorSums sums;
  sums.add("hello world", "hello duck");
  sums.add("one", "one two three");
  // jiwer.wer(["hello world", "one"], ["hello duck", "one two three"]), jiwer.cer
  EXPECT_DOUBLE_EQ(sums.word_error_rate(), 1.0);
  EXPECT_DOUBLE_EQ(sums.character_error_rate(), 15.0 / 14);
  EXPECT_EQ(ErrorSums().word_error_rate(), 0);
}

}  // namespace
}  // namespace weft
