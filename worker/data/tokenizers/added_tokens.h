// Added tokens: found in the text before anything else happens to it, and never cut.
//
// Thread safety: const calls from any thread. Ownership: owns the tokens.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "worker/data/tokenizers/word_model.h"

namespace weft::tokenizers {

struct AddedToken {
  int64_t id = 0;
  std::string content;
  std::string written;  // how decoders get it: as content, normalized where `normalized`
  bool special = false;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // with the white space in front of it
  bool rstrip = false;       // with the white space behind it
  bool normalized = false;   // looked for in the normalized text
};

// A stretch of a text: a token, or (id -1) what lies between.
struct Stretch {
  int64_t id = -1;
  size_t begin = 0, end = 0;
};

// Finds tokens in a text: leftmost first, the longest of those that start there.
class TokenMatcher {
 public:
  void add(const AddedToken& token);
  bool empty() const { return tokens_.empty(); }
  // A text that has `before` in front of `after`, one character each, has the tokens of the parts
  // that it makes when it is cut between them, whatever stands around. False: it may have others.
  bool apart(std::string_view before, std::string_view after) const;
  // Covers `text` without empty stretches.
  Status for_each_stretch(std::string_view text,
                          const std::function<Status(const Stretch&)>& visit) const;

 private:
  const AddedToken* longest_at(std::string_view text) const;

  std::map<std::string, AddedToken, std::less<>> tokens_;
  std::array<std::vector<size_t>, 256> lengths_;  // by first byte, longest first
  std::set<uint32_t> characters_;                 // code points of all tokens
  bool strips_ = false;                           // one takes white space along
};

// Of the section `added_tokens`; their ids have to be those that the `tokenizers` package gives
// them: the vocabulary's where the token stands in it, else counted on from its size.
Result<std::vector<AddedToken>> parse_added_tokens(const nlohmann::json& section,
                                                   const WordModel& model);

}  // namespace weft::tokenizers
