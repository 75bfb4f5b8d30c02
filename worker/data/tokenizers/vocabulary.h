// The tokens of a model and their ids.
//
// Thread safety: const calls from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "proto/base/status.h"

namespace weft::tokenizers {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <typename Value>
using StringMap = std::unordered_map<std::string, Value, StringHash, std::equal_to<>>;

// Of each byte the token <0x00> to <0xFF>; -1: there is none.
using ByteTokens = std::array<int32_t, 256>;

class Vocabulary {
 public:
  // Of the member `vocab` of a model: ids from 0 on without a gap. Errors name the field.
  Status load(const nlohmann::json& vocab);
  // The next id; of tokens that are alike, the last one is found.
  void add(std::string token);
  ByteTokens byte_tokens() const;
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
  std::optional<int64_t> find(std::string_view token) const {
    const auto found = ids_.find(token);
    if (found == ids_.end()) return std::nullopt;
    return found->second;
  }
  const std::string& token(int64_t id) const { return tokens_[static_cast<size_t>(id)]; }
  const StringMap<int32_t>& ids() const { return ids_; }

 private:
  std::vector<std::string> tokens_;
  StringMap<int32_t> ids_;
};

}  // namespace weft::tokenizers
