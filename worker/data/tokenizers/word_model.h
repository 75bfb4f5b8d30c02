// Turns one word into tokens of a vocabulary: the section `model` of a tokenizer.json.
//
// BPE (Sennrich et al. 2016): starting from the word's letters, the neighbours of the lowest merge
// rank are joined, leftmost first, until no merge applies. Letters are bytes, or characters, of
// which those that the vocabulary lacks may fall back to their bytes (Kudo and Richardson 2018).
// WordPiece (Wu et al. 2016; Devlin et al. 2019): the longest token that the word begins with, then
// the longest of those that continue one; a word that does not come out is the unknown token.
// Unigram (Kudo 2018): the pieces whose scores add up to the most; characters without a piece are
// the unknown token, neighbours of them one, or their bytes.
//
// Thread safety: const calls from any thread. Ownership: owns vocabulary, merges and a bounded
// cache of words. Invariants: 1. ids are 0 .. vocab_size() - 1 without gap. 2. BPE takes n log n in
// a word's length, Unigram
// time and memory by the length, as a whole document may be one word.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proto/base/status.h"

namespace weft::tokenizers {

// A token and how many bytes of the word it stands for; shared: the symbol behind it stands for the
// same ones.
struct Symbol {
  int32_t id = 0;
  uint32_t bytes = 0;
  bool shared = false;
};

enum class Alphabet { kBytes, kCharacters };

class WordModel {
 public:
  // Of the section `model`; the alphabet is BPE's. Errors name the field.
  static Result<std::shared_ptr<const WordModel>> parse(const nlohmann::json& section,
                                                        Alphabet alphabet);
  virtual ~WordModel() = default;
  virtual int64_t vocab_size() const = 0;
  virtual std::optional<int64_t> find(std::string_view token) const = 0;
  virtual const std::string& token(int64_t id) const = 0;
  // Appends the symbols of a word: raw bytes, or valid UTF-8. Error: a letter that the vocabulary
  // lacks, without unk_token or unk_id.
  virtual Status encode(std::string_view word, std::vector<Symbol>* out) const = 0;
  // A word that has `before` in front of `after`, neither empty, has the symbols of the words that
  // it makes when it is cut between them, whatever stands around. False: it may have others.
  virtual bool apart(std::string_view before, std::string_view after) const = 0;
  virtual std::string_view name() const = 0;  // "bpe", "unigram", "word_piece"
};

Result<std::shared_ptr<const WordModel>> parse_bpe(const nlohmann::json& section,
                                                   Alphabet alphabet);
Result<std::shared_ptr<const WordModel>> parse_word_piece(const nlohmann::json& section);
Result<std::shared_ptr<const WordModel>> parse_unigram(const nlohmann::json& section);

}  // namespace weft::tokenizers
