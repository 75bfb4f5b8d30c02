// Tokenizers: text to token ids and back.
//
// Thread safety: const calls from any thread. Ownership: a tokenizer owns all it needs.
// Invariants: 1. ids are those of the `tokenizers` package for the same tokenizer.json, or loading
// is refused and names the component. 2. every id given is in [0, vocab_size()). 3. no text and no
// pattern can make encode() run without bound: what is too costly is an error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proto/base/status.h"

namespace weft {

// Where a token comes from, in code points of the original text: [begin, end). Where a
// normalization form changed a character and its marks, all of these.
struct TokenOffsets {
  int64_t begin = 0, end = 0;
};

struct Encoding {
  std::vector<int64_t> ids;
  std::vector<TokenOffsets> offsets;  // one an id; of an id the post-processor put in: {0, 0}
};

struct DecodeOptions {
  bool skip_special = false;  // leaves special tokens out
  bool continues = false;  // the ids stand behind others: a space that starts the first of them is
                           // one of the text, none that encode() put in front of it
  bool settled = false;    // only the text that ids behind these cannot change
};

// Of what a post-processor makes of two texts, in order.
enum class PairText { kNone, kFirst, kSecond };
struct PairPiece {
  PairText text = PairText::kNone;
  int64_t id = 0;    // a token's, where it is no text
  int64_t type = 0;  // of its tokens
};

// The types of one text's tokens: of each put before it, of its own, of each put behind.
struct TextTypes {
  std::vector<int64_t> prefix, suffix;
  int64_t text = 0;
  bool any() const;  // that is not 0
  // Of a row of so many tokens.
  void write(std::span<int64_t> types) const;
};

// A tokenizer's files, as they are handed through from import to export.
struct TokenizerFile {
  std::string name;  // of tokenizer_file_names()
  std::string content;
};

using IdSink = std::function<void(std::span<const int32_t>)>;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // "byte", "byte_level_bpe", "character_bpe", "unigram" or "word_piece".
  virtual std::string_view type() const = 0;
  // The largest id plus one. A model needs at least as many rows in its embedding.
  virtual int64_t vocab_size() const = 0;

  // `add_special`: with what the post-processor puts around (added tokens that stand in the text
  // are found either way). Errors: the text is not valid UTF-8 (the byte tokenizer takes any
  // bytes), a character that the vocabulary lacks, a text beyond the limits of matching.
  Result<std::vector<int64_t>> encode(std::string_view text, bool add_special) const;
  virtual Result<Encoding> encode_with_offsets(std::string_view text, bool add_special) const = 0;
  // The ids piece by piece, for texts whose ids should not be held as 8 bytes each.
  virtual Status encode_to(std::string_view text, bool add_special, const IdSink& sink) const = 0;
  // The ids of a word of a text that is given word by word, as transformers' is_split_into_words
  // has them: at byte level, where the space before a word is part of it, with one in front.
  virtual Status encode_word(std::string_view word, const IdSink& sink) const {
    return encode_to(word, false, sink);
  }

  // Ids without a token give nothing. Bytes that form no UTF-8 come out as they are from the byte
  // tokenizer and as U+FFFD from the others.
  virtual std::string decode(std::span<const int64_t> ids, const DecodeOptions& options) const = 0;

  // What the post-processor puts before and behind one text.
  virtual std::span<const int64_t> prefix_ids() const = 0;
  virtual std::span<const int64_t> suffix_ids() const = 0;
  virtual TextTypes text_types() const { return {}; }
  // What it makes of two texts; empty: nothing, so that the model reads no pairs.
  virtual std::span<const PairPiece> pair_pieces() const { return {}; }

  std::optional<int64_t> bos_id() const { return bos_id_; }
  std::optional<int64_t> eos_id() const { return eos_id_; }
  std::optional<int64_t> pad_id() const { return pad_id_; }
  // What stands for a token that is to be predicted from those around it.
  std::optional<int64_t> mask_id() const { return mask_id_; }
  // The ids of tokens that stand for no text, ascending.
  std::span<const int64_t> special_ids() const { return special_ids_; }
  // Where the model's configuration knows better than the tokenizer's files.
  void set_eos_id(int64_t id) { eos_id_ = id; }
  // The files beside tokenizer.json, which may hold a chat template.
  const std::vector<TokenizerFile>& files() const { return files_; }
  void set_files(std::vector<TokenizerFile> files) { files_ = std::move(files); }

 protected:
  std::optional<int64_t> bos_id_, eos_id_, pad_id_, mask_id_;
  std::vector<int64_t> special_ids_;

 private:
  std::vector<TokenizerFile> files_;
};

// Token id = byte value; 256 = end of text "<|endoftext|>". vocab_size 257.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

// BPE, WordPiece or Unigram (or the byte tokenizer, where the file is an export of it, so that any
// bytes go in and come out) from the text of a tokenizer.json; `config_text` is that of the
// tokenizer_config.json beside it (empty: none), which says which tokens end, start, pad and mask.
// Where it does not say, the end is the first special token of <|endoftext|>, </s>,
// <|end_of_text|>, <|im_end|>, the mask that of [MASK], <mask>. The file's `truncation` and
// `padding` are not applied: sequence length and padding are the job's. The pre-tokenizer tells
// whether merges start from bytes (GPT-2, Llama 3, Qwen) or from characters (SentencePiece's BPE:
// Llama 1 and 2, TinyLlama, Mistral). Errors name the field; a component other than these is
// refused by its name:
//   normalizer      null, NFC, NFD, NFKC, NFKD, Precompiled, Prepend, Replace, Strip,
//                   StripAccents, Lowercase, BertNormalizer, Sequence of these
//   pre_tokenizer   bytes: ByteLevel, Sequence of Split (Regex or String, any behavior) and Digits
//                   with ByteLevel at its end; characters: null, Metaspace, Sequence of
//                   WhitespaceSplit and Metaspace (not `first`), BertPreTokenizer
//   model           BPE without dropout and affixes; byte_fallback of characters only; of
//                   characters WordPiece, Unigram
//   post_processor  null, ByteLevel, TemplateProcessing, Sequence of these; BertProcessing,
//                   RobertaProcessing
//   decoder         bytes: ByteLevel; characters: Replace (of a string), ByteFallback, Fuse, Strip
//                   (of the start), Metaspace, Sequence of these (behind Fuse only Strip);
//                   WordPiece
// Decoding leaves out every special token; `tokenizers` 0.23 keeps those with `normalized` whose
// text a normalizer changes.
Result<std::unique_ptr<Tokenizer>> load_tokenizer_json(std::string_view json_text,
                                                       std::string_view config_text = {});
// The same from a file; reads the tokenizer_config.json beside it where there is one, and what else
// may tell a chat template.
Result<std::unique_ptr<Tokenizer>> load_tokenizer_file(const std::string& path);

// Those of the byte tokenizer; transformers' PreTrainedTokenizerFast loads them and gives its ids.
// (Only text: transformers cannot feed bytes that are not UTF-8.)
std::vector<TokenizerFile> byte_tokenizer_files();
std::string byte_tokenizer_json();
// The names that transformers writes, tokenizer.json first.
std::span<const std::string_view> tokenizer_file_names();
// Those that stand in a folder. Error: unreadable.
Result<std::vector<TokenizerFile>> read_tokenizer_files(const std::string& folder);

// SentencePiece's own file, of which transformers makes a tokenizer.json.
constexpr std::string_view kSentencePieceFile = "tokenizer.model";
// What a folder has that has no tokenizer.json: none, or (`sentencepiece`) only that file, and the
// command that converts it. folder: as the command has to name it.
std::string no_tokenizer_json(bool sentencepiece, const std::string& folder = "FOLDER");

// How many tokens of a seq2seq's target are the tokenizer's own: what its post-processor puts
// around a text, and the end that a target has even so.
int64_t tokens_around_target(const Tokenizer& tokenizer);

}  // namespace weft
