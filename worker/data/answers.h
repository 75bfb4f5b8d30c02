// Answers that are parts of a text, as SQuAD has them (Rajpurkar et al. 2016, 2018): how rows hold
// them, and how those that were found are scored.
//
// Thread safety: pure functions; const calls from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/source.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft {

class Dataset;

// Of {"text": [...], "answer_start": [...]}, under `key`, into a document that has its second text.
// Errors: other keys' types, lists of other lengths, an empty answer, one that does not stand in
// the text where it says.
Status read_answers(const std::string& key, const nlohmann::json& value, Document* document);

// The code points [begin, end) of `text`.
std::string_view code_points_of(std::string_view text, int64_t begin, int64_t end);

// The first and the last of a window's tokens that cover an answer; {-1, -1}: the window does not
// hold all of it.
struct TokenSpan {
  int64_t first = -1, last = -1;
};
TokenSpan covering_tokens(std::span<const TokenOffsets> window, const Answer& answer);

// The likeliest answer of a window: the sum of two logits, and of those of the row's first token,
// which mean that there is none.
struct FoundAnswer {
  int64_t sample = 0;
  TokenSpan span;                    // of the window's tokens; {-1, -1}: none is allowed
  double score = 0, none_score = 0;  // sums of two logits
  double log_total = 0;  // of exponentials of such sums, of which a probability is one's
};

// Of a question's windows the one whose answer has the largest score, null where none has an
// answer; and the one where none has the least score.
struct BestAnswer {
  const FoundAnswer* answer = nullptr;
  const FoundAnswer* none = nullptr;
  // Whether there is no answer, where that may be.
  bool is_none(bool may_be_none) const {
    return answer == nullptr || (may_be_none && none->none_score > answer->score);
  }
};
// One a question. `found`, which is of all samples of the data, outlives them.
std::vector<BestAnswer> best_answers(const Dataset& data, std::span<const FoundAnswer> found);

// How SQuAD compares texts: small letters, without ASCII's punctuation and without articles, words
// parted by one space.
std::vector<std::string> compared_words(std::string_view text);
bool is_exact(std::string_view found, std::string_view wanted);
// Of the words that they share; texts without words are alike or not.
double word_f1(std::string_view found, std::string_view wanted);

// "exact_match" and "f1" of held-out data's questions, each the best over a question's answers,
// averaged. `found` is of all its samples. The answer is that of the window where it has the
// largest score; where any question of the data has no answer, none where that scores more.
std::map<std::string, double> answer_scores(const Dataset& data,
                                            std::span<const FoundAnswer> found);

}  // namespace weft
