// SentencePiece's rules of normalization (its precompiled_charsmap): an unsigned 32 bit
// little-endian size, a Darts double-array trie of so many bytes, of what is replaced, and the
// replacements, each ended by a zero byte, at the places that the trie's leaves say.
//
// Thread safety: const calls from any thread. Ownership: owns trie and texts.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft::tokenizers {

class Charsmap {
 public:
  // Of a normalizer Precompiled. Errors name the field.
  static Result<Charsmap> parse(const nlohmann::json& section, const std::string& field);

  // As the `tokenizers` package: a short user-perceived character as a whole, where a rule has its
  // start, else code point by code point.
  Normalized apply(std::string_view text, bool with_origin) const;

 private:
  std::string check() const;  // the rule that is broken; empty: none
  // The replacement of the shortest start of `part` that has one; false: there is none.
  bool find(std::string_view part, std::string_view* replacement) const;
  // Puts `part` in the place of itself; `origin`: its first code point.
  void add(std::string_view part, std::string_view replacement, int64_t origin, bool with_origin,
           Normalized* result) const;

  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace weft::tokenizers
