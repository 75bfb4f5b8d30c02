// What happens to a text before it is cut into words: the section `normalizer`.
//
// Thread safety: const calls from any thread. Ownership: owns its steps.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "worker/data/tokenizers/bert_text.h"
#include "worker/data/tokenizers/charsmap.h"
#include "worker/data/tokenizers/normal_form.h"
#include "worker/data/tokenizers/replace.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft::tokenizers {

class Normalizer {
 public:
  // NFC, NFD, NFKC, NFKD, Precompiled, Prepend, Replace, Strip, StripAccents, Lowercase,
  // BertNormalizer and Sequences of these. Errors name the component and the field.
  static Result<Normalizer> parse(const nlohmann::json& section);

  // Leaves every text as it is.
  bool empty() const { return steps_.empty(); }
  // Nothing but Prepend and Replace of a character: what comes of a character does not depend on
  // those around it.
  bool by_characters() const;
  // `begins`: a stretch; else the text goes on with one, and nothing is put in front of it.
  // `with_origin`: tells where each code point comes from; of one that was put in, from the one it
  // was put in front of, or from the last one that it replaces, or that it stands behind. Error:
  // the limits of matching.
  Result<Normalized> apply(std::string_view text, bool with_origin, bool begins = true) const;

 private:
  enum class Kind { kForm, kCharsmap, kPrepend, kReplace, kStrip, kAccents, kLowercase, kBert };
  struct Step {
    Kind kind = Kind::kForm;
    NormalForm form = NormalForm::kNfc;
    Replace replace;  // of kPrepend: the content
    BertNormalizer bert;
    std::shared_ptr<const Charsmap> charsmap;
    bool strips_start = false, strips_end = false;  // of kStrip: white space
  };
  Status add(const nlohmann::json& section, const std::string& field, int depth);
  Status add_sequence(const nlohmann::json& section, const std::string& field, int depth);
  static Result<Normalized> apply_step(const Step& step, std::string_view text, bool with_origin);

  std::vector<Step> steps_;
};

}  // namespace weft::tokenizers
