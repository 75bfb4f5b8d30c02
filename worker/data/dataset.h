// A task's data as numbered samples of token ids, and the order in which they are used.
//
// causal_lm: all documents in one stream, each with what the post-processor puts around it and
// followed by the tokenizer's eos token. Sample i is the window of `sequence_length` tokens that
// starts at i * (sequence_length - 1): windows share one token, because the first token of a window
// is only looked at and never predicted, so that an epoch predicts each token of the stream but its
// first exactly once. The last window may be short; it is kept and padded. A chat is a document of
// what its template renders, with nothing put around it or behind it; of its tokens only the
// answers' are predicted (chats.h), and data with chats leaves out windows that predict nothing.
// masked_lm: all documents in one stream, with what the post-processor puts behind a text between
// two of them. Sample i is the i-th window of as many tokens as leave room for what the
// post-processor puts around a text, with that around it; tokens of it are masked (masking.h).
// permutation_lm: the same windows, of each of which some tokens are predicted in an order of their
// own (permutation.h).
// sequence_classification: a sample a line, cut to `sequence_length` tokens (what the
// post-processor puts around stays). A batch is padded behind, to its longest row rounded up to a
// multiple of 8. Texts that are to be classified (kUnlabeled) are samples alike, without labels.
// token_classification: the same of lists of words, of each of which the first token has the word's
// label and the others none. Words that are to be classified (kUnlabeledWords) are samples alike.
//
// sequence_classification of pairs (`source.pair_key`): both texts as the post-processor puts them
// into one row, with their token types; the longer one is cut first (pair_template.h).
// multiple_choice: a sample is a row for each of its choices, the text and the choice as a pair,
// and one label. A batch has a sample's rows one after the other. embedding: a sample is two rows,
// as of a sequence_classification without labels. A batch has the first texts of all its samples,
// and behind them the second texts in the same order.
// question_answering: a question and a text that may hold its answer, as a pair. Where that is too
// long the text is cut into windows, each a sample with the whole question, of which neighbours
// share `stride` tokens (transformers' only_second with overflowing tokens). Questions without
// answers (kUnlabeledQuestions) are samples alike.
// seq2seq: a sample is a text that is read and its target (`source.pair_key`), each framed and cut
// as a line of a sequence_classification, to `sequence_length` and `target_length` tokens. A target
// ends with the tokenizer's eos token, whatever the post-processor puts behind a text.
// speech_recognition: a sample is a recording, which is read anew each time that it is used, and
// its text as a seq2seq's target; where that begins with the token that the decoder is fed with
// first
// (`start_id`), without it.
// image_classification: a sample is an image, which is decoded anew each time that it is used; of
// training data that is augmented, a random part of it (augmentation.h).
//
// Thread safety: const calls from any thread, but where options have a pool from its owner's alone.
// Ownership: a Dataset owns its tokens, as 2 bytes each where the vocabulary allows, else 4; of
// images and recordings their names, and the files stay where they are.
// Invariants: 1. samples and their order depend on the data, the options and the seed only. 2.
// every rank that loads the same input has the same samples. 3. padding has id pad_id (else eos_id,
// else 0) and valid 0.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops/random.h"
#include "proto/base/status.h"
#include "worker/data/audio/preprocessor.h"
#include "worker/data/images/preprocessor.h"
#include "worker/data/masking.h"
#include "worker/data/pair_template.h"
#include "worker/data/permutation.h"
#include "worker/data/rows.h"
#include "worker/data/source.h"
#include "worker/data/token_store.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft::proto {
class TaskSpec;
}

namespace weft {

class Labels;
class ThreadPool;

enum class SampleKind {
  kCausalLm,
  kMaskedLm,
  kPermutationLm,
  kClassification,
  kTokenClassification,
  kMultipleChoice,
  kEmbedding,
  kQuestionAnswering,
  kSeq2Seq,
  kImages,
  kSpeech,
  kUnlabeled,
  kUnlabeledWords,
  kUnlabeledQuestions,
  kUnlabeledImages
};
// Samples are windows of one stream; else lines.
bool is_stream(SampleKind kind);
// A sample is a list of words.
bool is_words(SampleKind kind);
// A sample is a window of a text that is asked about.
bool is_question(SampleKind kind);
// A sample is an image.
bool is_images(SampleKind kind);
// A sample has a target, a text that is to be written.
bool has_target(SampleKind kind);
// Samples have labels of their own: classes.
bool is_labeled(SampleKind kind);

struct DatasetOptions {
  SampleKind kind = SampleKind::kCausalLm;
  SourceOptions source;         // label_key is set for a classification
  int64_t sequence_length = 0;  // at least 2 for causal_lm, permutation_lm, 1 for classification
  int64_t target_length = 0;    // tokens of a target, its end included
  int64_t labels = 0;           // number of classes, or of choices
  int64_t stride = 0;           // question_answering: tokens that windows of a text share
  double mask_rate = 0;         // masked_lm, permutation_lm: share of tokens that are predicted
  RandomKey mask_key = {};      // the same: of rows(); range() masks every data set alike
  // Held-out data: label_names() of the training data, whose classes it has. Absent: this is the
  // training data.
  std::optional<std::vector<std::string>> label_names;
  // Training data: the classes of the model that the training starts from, as labels.h has them.
  std::vector<std::string> first_labels = {};
  // Of images.
  std::optional<ImagePreprocessor> preprocessor = {};
  std::optional<RandomKey> augment_key =
      {};  // absent: rows() does not augment, as range() never does
  // Of recordings.
  std::optional<AudioPreprocessor> audio = {};
  std::optional<int64_t> start_id = {};  // the decoder's first token
  ThreadPool* pool = nullptr;            // decodes images and recordings; null: the caller does
};
DatasetOptions dataset_options(const proto::TaskSpec& task, int64_t sequence_length,
                               int64_t target_length);

// Hands the documents to `visit`, in order; stops at the first error, its own or the visit's.
using Documents = std::function<Status(const std::function<Status(const Document&)>& visit)>;

class Chats;

class Dataset {
 public:
  // Errors name file, line and rule: those of source.h, labels.h, chats.h and check.h; no sample.
  static Result<std::shared_ptr<const Dataset>> load(const std::vector<SourceFile>& files,
                                                     const DatasetOptions& options,
                                                     const Tokenizer& tokenizer);
  // The same of documents from anywhere; `options.source` has their keys, for messages.
  static Result<std::shared_ptr<const Dataset>> load(const Documents& documents,
                                                     const DatasetOptions& options,
                                                     const Tokenizer& tokenizer);
  // Of images. Errors: those of source.h, images/image.h's of headers and labels.h.
  static Result<std::shared_ptr<const Dataset>> load_images(const std::vector<SourceFile>& files,
                                                            const DatasetOptions& options);
  int64_t samples() const { return samples_; }
  // Of recordings: how many are longer than what is read of each.
  int64_t cut_recordings() const { return cut_recordings_; }
  int64_t rows_per_sample() const;
  int64_t tokens() const;  // of the whole data, padding not counted
  // Classes by name; empty where the labels are integers.
  const std::vector<std::string>& label_names() const { return label_names_; }
  // Of the text's end, beyond `sequence_length`; 0 of a stream, which leaves nothing out.
  int64_t dropped_tokens(int64_t sample) const {
    return dropped_.empty() ? 0 : dropped_[static_cast<size_t>(sample)];
  }
  // Of words: the place of each one's first token in the sample's row, -1 of one that has none
  // there.
  std::vector<int64_t> word_places(int64_t sample) const;

  // Of questions, but those of training data: the number of them, the texts that they are asked
  // about, and their answers.
  int64_t questions() const { return std::ssize(questions_); }
  const std::string& context(int64_t question) const { return questions_at(question).context; }
  const std::vector<Answer>& answers(int64_t question) const {
    return questions_at(question).answers;
  }
  // The question that a sample is a window of, and where the tokens that the window has of the text
  // stand in it.
  int64_t question_of(int64_t sample) const;
  std::span<const TokenOffsets> window_offsets(int64_t sample) const;

  // The samples, in this order, as one batch. causal_lm: tokens = sequence_length, labels empty
  // (every valid token that follows one) but with chats; masked_lm: tokens = sequence_length,
  // labels [rows, tokens]; permutation_lm: tokens = sequence_length, labels and places [rows,
  // predictions], order [rows, tokens]; classification: labels [rows], of words [rows, tokens],
  // kNoLabel without labels; multiple_choice: `labels` rows a sample, labels [samples]; embedding:
  // two rows a sample, no labels; question_answering: labels [rows, 2], the first token where a
  // window does not hold the answer whole; seq2seq: labels [rows, target_tokens]; recordings:
  // features without ids, labels likewise; images: patches without ids, labels [rows]. Throws
  // StatusError where an image or a recording is broken behind its header, or its file is gone.
  TaskRows rows(std::span<const Visit> visits) const;
  // Samples [first, first + count), cut at the end of the data: evaluation.
  TaskRows range(int64_t first, int64_t count) const;

 private:
  struct Question {
    std::string context;
    std::vector<Answer> answers;
  };
  // Of a sample: its question, the place of its first offset, of its context in its row.
  struct Window {
    int64_t question = 0, offset = 0, first = 0, tokens = 0;
  };
  const Question& questions_at(int64_t question) const {
    return questions_[static_cast<size_t>(question)];
  }
  bool keeps_texts() const;

  explicit Dataset(DatasetOptions options) : options_(std::move(options)) {}
  Status load_stream(const Documents& documents, const Tokenizer& tokenizer);
  Status load_windows(const Documents& documents, const Tokenizer& tokenizer);
  Status add_text(const Document& document, const Tokenizer& tokenizer);
  Status add_chat(const Document& document, const Tokenizer& tokenizer, Chats& chats);
  Status find_windows();
  void add_token_labels(int64_t sample, TaskRows& rows) const;
  Status load_lines(const Documents& documents, const Tokenizer& tokenizer);
  Status add_pair(const Document& document, const Tokenizer& tokenizer);
  Status add_pair(const Document& document, const std::string& second_key, std::string_view second,
                  const Tokenizer& tokenizer);
  Status add_question(const Document& document, const Tokenizer& tokenizer);
  void add_window(const Document& document, std::span<const int64_t> question,
                  const Encoding& context, int64_t first, int64_t tokens);
  void add_ends(int64_t sample, TaskRows& rows) const;
  Status add_row(const Document& document, const Tokenizer& tokenizer);
  Status add_target(const Document& document, const Tokenizer& tokenizer);
  Status load_recordings(const Documents& documents, const Tokenizer& tokenizer);
  void lay_targets(std::span<const Visit> targets, TaskRows& rows) const;
  TaskRows recording_rows(std::span<const Visit> visits) const;
  Status read_recording(int64_t sample, float* features) const;
  // Rows of tokens that are kept of a sample.
  int64_t rows_kept() const;
  Status add_tokens(const Document& document, const Tokenizer& tokenizer);
  void cut_at(int64_t end);
  Status add_labels(const Document& document, Labels& labels);
  void name_labels(const Labels& labels);  // of all that were added
  Status check_count() const;
  // Fills in room_.
  Status find_room(const Tokenizer& tokenizer);
  // `row`: a sample, or one of its texts.
  int64_t row_start(int64_t row) const;
  int64_t row_length(int64_t row) const;
  void copy_row(int64_t row, std::span<int64_t> ids) const;
  void label_words(int64_t sample, std::span<int64_t> labels) const;
  TaskRows rows_of(std::span<const Visit> visits, RandomKey mask_key) const;
  TaskRows laid_out(std::span<const Visit> rows, RandomKey mask_key) const;
  TaskRows with_targets(std::span<const Visit> visits) const;
  // Tokens of the longest of these, rounded up, at most `most`.
  int64_t width_of(std::span<const Visit> rows, int64_t most) const;
  TaskRows image_rows(std::span<const Visit> visits, std::optional<RandomKey> augment_key) const;
  Status read_image(Visit visit, std::optional<RandomKey> augment_key, float* patches) const;

  const DatasetOptions options_;
  TokenStore store_;
  int64_t samples_ = 0;
  int64_t pad_id_ = 0;
  int64_t room_ = 0;                      // tokens of a sample between what stands around it
  int64_t stride_ = 0;                    // streams: from the start of a window to the next
  std::vector<int64_t> prefix_, suffix_;  // masked_lm, permutation_lm: put around each window
  std::vector<uint8_t> learned_;          // causal_lm with chats: which tokens are predicted
  std::vector<int64_t> windows_;          // the same: the windows that are samples
  std::optional<Masking> masking_;        // masked_lm
  std::optional<Permutation> permuted_;   // permutation_lm
  std::vector<int64_t> starts_;           // lines: where each row starts, and the end
  TextTypes types_;                       // of a row of one text
  std::optional<PairTemplate> pairs_;     // classification of pairs
  std::vector<int64_t> first_tokens_;     // of these: how many tokens of the first text a row has
  std::vector<int64_t> labels_;           // lines: of each text, or of each word, or two of each
                                          // window
  std::vector<Window> question_windows_;  // questions: of each sample
  std::vector<Question> questions_;       // these, but of training data
  std::vector<TokenOffsets> offsets_;     // of their texts' tokens
  std::vector<int64_t> word_tokens_;      // words: where in the store each begins, or -1
  std::vector<int64_t> word_starts_;      // words: where each sample's words start, and the end
  std::vector<int64_t> dropped_;          // lines
  std::vector<std::string> label_names_;
  std::vector<SourceFile> files_;  // of images or recordings: each sample's
  int64_t cut_recordings_ = 0;
};

// Where a sampler is: `sample` samples of epoch `epoch` are used. (proto::DataPosition's fields.)
struct SamplerPosition {
  int64_t epoch = 0;
  int64_t sample = 0;
};

// The order of the samples of a training: epoch after epoch, each a seeded permutation of all of
// them (Fisher-Yates over Philox, a pure function of key and epoch) or, unshuffled, their order. A
// batch that reaches the end of an epoch goes on with the next one's.
//
// Thread safety: one thread. Invariant: the order depends on samples, shuffle and key only, so a
// sampler set to a position goes on exactly as the one that was there.
class Sampler {
 public:
  Sampler(int64_t samples, bool shuffle, RandomKey key);
  std::vector<Visit> next(int64_t count);
  SamplerPosition position() const { return position_; }
  // Error: outside of this data (the data has changed).
  Status restore(SamplerPosition position);

 private:
  void arrange(int64_t epoch);

  const int64_t samples_;
  const bool shuffle_;
  const RandomKey key_;
  SamplerPosition position_;
  int64_t arranged_ = -1;        // epoch of order_
  std::vector<uint32_t> order_;  // empty: unshuffled
};

}  // namespace weft
