// Cuts a text into the words that BPE works on: ByteLevel, and Split and Digits before it.
//
// Thread safety: const calls from any thread. Ownership: owns its expressions.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "worker/data/tokenizers/regex.h"

namespace weft::tokenizers {

enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitStep {
  std::shared_ptr<const Regex> regex;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;
};

class PreTokenizer {
 public:
  // Of the section `pre_tokenizer`. Errors name the component and the field.
  static Result<PreTokenizer> parse(const nlohmann::json& section);

  // The words of `text`, none empty, in order; views into `text`, or into a copy of their piece of
  // it with a space in front where add_prefix_space asks for one (then `shifted`).
  struct Word {
    std::string_view text;
    size_t piece = 0;  // first byte, in `text`, of the piece that Split or Digits cut out
    size_t begin = 0;  // byte of the piece, counting a space in front of it
    bool shifted = false;
  };
  Status for_each_word(std::string_view text,
                       const std::function<Status(const Word&)>& visit) const;

 private:
  Status split(size_t step, std::string_view text, size_t begin,
               const std::function<Status(const Word&)>& visit) const;
  Status byte_level(std::string_view text, size_t begin,
                    const std::function<Status(const Word&)>& visit) const;
  Status add(const nlohmann::json& component, const std::string& field, bool last);

  std::vector<SplitStep> steps_;
  std::shared_ptr<const Regex> words_;  // of ByteLevel; null: use_regex is off
  bool add_prefix_space_ = false;
};

// Pieces of `text` as [begin, end), by `step`.
Result<std::vector<Match>> split_pieces(const SplitStep& step, std::string_view text);

}  // namespace weft::tokenizers
