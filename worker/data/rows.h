// Rows of a step's batch as host arrays: what data sets give and tasks take.
//
// Thread safety and ownership: values.
#pragma once

#include <cstdint>
#include <vector>

namespace weft {

inline constexpr int64_t kNoLabel = -100;

// A window of a text that is searched for an answer: a sample of its data set, and which of its
// row's tokens are the text's.
struct ContextWindow {
  int64_t sample = 0, first = 0, tokens = 0;
};

// The same on every rank. Row-major [rows, tokens].
struct TaskRows {
  int64_t rows = 0, tokens = 0;
  std::vector<int64_t> ids;
  std::vector<uint8_t> valid;        // 0: padding; empty: all valid
  std::vector<int64_t> positions;    // empty: as the model counts them
  std::vector<int64_t> token_types;  // empty: all 0
  std::vector<int64_t> documents;    // empty: one document a row
  // image_classification: [rows, tokens - 1, values of a patch], channel by channel, each row by
  // row, as the model's projection takes them; empty: of text. Without ids.
  std::vector<float> patches;
  // speech_recognition: [rows, 2 tokens, mel bins], the recordings' features frame by frame, as
  // many as make the encoder's positions. Without ids.
  std::vector<float> features;
  // causal_lm: [rows, tokens], the token itself where it is to be predicted, else kNoLabel (the
  // task shifts); empty: every valid token that follows a valid one of its document.
  // masked_lm, token_classification: [rows, tokens], kNoLabel where nothing is predicted.
  // sequence_classification: [rows]. multiple_choice: one for the rows of each question.
  // question_answering: [rows, 2], the tokens that an answer begins and ends with.
  // seq2seq, speech_recognition: [rows, target_tokens], what is to be written, kNoLabel behind its
  // end.
  // permutation_lm: [rows, predictions], kNoLabel where a row has fewer.
  std::vector<int64_t> labels;
  int64_t target_tokens = 0;
  // permutation_lm: how many tokens of a row are predicted at most, and at which places, [rows,
  // predictions], the row's first of those without a label; by rising places they are the fastest.
  int64_t predictions = 0;
  std::vector<int64_t> places;
  // The same: [rows, tokens], in which order: 0 of the context, which all tokens see, else from 1
  // on, different in a row; such a token is predicted from all of a lower number.
  std::vector<int64_t> order;
  std::vector<ContextWindow> windows;  // question_answering: of each row; empty: of none
};

}  // namespace weft
