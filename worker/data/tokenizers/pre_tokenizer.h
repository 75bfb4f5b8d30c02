// Cuts a text into the words that a model works on: ByteLevel, and Split and Digits before it;
// Metaspace, and white space left out before it; BERT's words and signs; or nothing, so that all of
// a text is one word.
//
// Thread safety: const calls from any thread. Ownership: owns its expressions.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "worker/data/tokenizers/metaspace.h"
#include "worker/data/tokenizers/regex.h"

namespace weft::tokenizers {

enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitStep {
  std::shared_ptr<const Regex> regex;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;
};

// What a piece of a text begins: the text; a stretch of it, behind an added token; or nothing, as
// it goes on with the stretch that stands before it.
enum class Start { kText, kStretch, kNone };

class PreTokenizer {
 public:
  // Of the section `pre_tokenizer`. Errors name the component and the field.
  static Result<PreTokenizer> parse(const nlohmann::json& section);

  // Words are bytes; else characters.
  bool byte_level() const { return byte_level_; }
  // A text that begins with no space gets one.
  bool adds_prefix_space() const { return add_prefix_space_; }
  // The words add up to the text, but for what is put in or replaced.
  bool joins_words() const { return !bert_ && !white_space_; }

  // The words of `text`, none empty, in order. At byte level `text` is always a whole stretch.
  struct Word {
    std::string_view text;   // view into `whole`
    std::string_view whole;  // the piece that Split or Digits cut out, or a rewritten copy: as many
                             // code points, but for one put in front where `shifted`
    size_t piece = 0;        // first byte, in the text, of that piece
    bool shifted = false;
  };
  Status for_each_word(std::string_view text, Start start,
                       const std::function<Status(const Word&)>& visit) const;

 private:
  Status split(size_t step, std::string_view text, size_t begin,
               const std::function<Status(const Word&)>& visit) const;
  Status byte_level(std::string_view text, size_t begin,
                    const std::function<Status(const Word&)>& visit) const;
  Status metaspace(std::string_view text, Start start,
                   const std::function<Status(const Word&)>& visit) const;
  // Between white space, each word by Metaspace.
  Status white_space(std::string_view text, const std::function<Status(const Word&)>& visit) const;
  static Status bert_words(std::string_view text, const std::function<Status(const Word&)>& visit);
  Status add(const nlohmann::json& component, const std::string& field, bool last);
  Status add_byte_level(const nlohmann::json& component, const std::string& field);

  std::vector<SplitStep> steps_;
  std::shared_ptr<const Regex> words_;  // of ByteLevel; null: use_regex is off
  bool byte_level_ = false, add_prefix_space_ = false, bert_ = false;
  bool white_space_ = false;  // WhitespaceSplit stands before Metaspace
  std::optional<Metaspace> metaspace_;
};

// Pieces of `text` as [begin, end), by `step`.
Result<std::vector<Match>> split_pieces(const SplitStep& step, std::string_view text);

}  // namespace weft::tokenizers
