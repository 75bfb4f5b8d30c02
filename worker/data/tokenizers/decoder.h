// From tokens back to a text: the section `decoder`.
//
// Thread safety: const calls from any thread. Ownership: owns its steps. Invariant: text that
// decode() gives for some tokens is the start of what it gives for these and more, but for byte
// tokens at the end (is_open) and, at byte level, for bytes at the end that form no character yet.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "worker/data/tokenizers/metaspace.h"
#include "worker/data/tokenizers/replace.h"

namespace weft::tokenizers {

// The byte that a token like <0x0A> stands for; -1: it is none.
int byte_of_token(std::string_view token);

class Decoder {
 public:
  // `byte_level`: of a ByteLevel pre-tokenizer, whose tokens only a ByteLevel decoder reads. Else
  // Replace (of a string), ByteFallback (once), Fuse, Strip (of the start), Metaspace, WordPiece,
  // and Sequences of these. Errors name the component and the field.
  static Result<Decoder> parse(const nlohmann::json& section, bool byte_level);

  // `continues`: the tokens stand behind others, so that none of them begins the text.
  std::string decode(std::vector<std::string> tokens, bool continues) const;
  bool byte_level() const { return byte_level_; }
  // What comes of the token depends on the tokens behind it.
  bool is_open(std::string_view token) const;

 private:
  enum class Kind { kReplace, kByteFallback, kFuse, kStrip, kMetaspace, kWordPiece };
  struct Step {
    Kind kind = Kind::kFuse;
    Replace replace;      // of kStrip: the character, as its content; of kWordPiece: the prefix
    bool cleans = false;  // of kWordPiece: no spaces before signs and short forms
    size_t start = 0;     // of kStrip: how many at most
    Metaspace metaspace;  // of kMetaspace
  };
  // Of the steps that change each token by itself. `first`: the token begins the text.
  static void change(const Step& step, bool first, std::string* token);
  Status add(const nlohmann::json& section, const std::string& field, int depth);
  Status add_strip(const nlohmann::json& section, const std::string& field);
  Status add_word_piece(const nlohmann::json& section, const std::string& field);

  bool byte_level_ = false, byte_fallback_ = false, fuse_ = false;
  std::vector<Step> steps_;
};

}  // namespace weft::tokenizers
