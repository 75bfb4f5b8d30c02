// How BERT's tokenizers see characters (Devlin et al. 2019), as the `tokenizers` package has it: by
// the categories of Unicode 8, so that a mark or sign that came later is a letter like any other.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "proto/base/status.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft::tokenizers {

// The normalizer BertNormalizer; each character by itself.
struct BertNormalizer {
  bool clean_text = true;            // without control characters; white space becomes a space
  bool handle_chinese_chars = true;  // each between spaces
  bool strip_accents = true;
  bool lowercase = true;

  Normalized apply(std::string_view text, bool with_origin) const;
};
Result<BertNormalizer> parse_bert_normalizer(const nlohmann::json& section,
                                             const std::string& field);

// What BertPreTokenizer cuts out by itself, and leaves out.
bool is_bert_punctuation(uint32_t code_point);
bool is_bert_space(uint32_t code_point);

}  // namespace weft::tokenizers
