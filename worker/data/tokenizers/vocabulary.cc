#include "worker/data/tokenizers/vocabulary.h"

#include <cstdio>
#include <utility>

#include "worker/data/tokenizers/json_fields.h"

namespace weft::tokenizers {

Status Vocabulary::load(const json& vocab) {
  if (!vocab.is_object() || vocab.empty()) {
    return wrong("model.vocab", vocab, "must be an object with a token or more");
  }
  tokens_.resize(vocab.size());
  std::vector<bool> taken(vocab.size());
  for (const auto& [token, value] : vocab.items()) {
    const std::string field = "model.vocab.\"" + token.substr(0, 60) + "\"";
    WEFT_ASSIGN_OR_RETURN(const int64_t id, id_of(field, value));
    const auto at = static_cast<size_t>(id);
    if (at >= tokens_.size()) {
      return wrong(field, value,
                   "ids must be 0 to " + std::to_string(tokens_.size() - 1) +
                       " without a gap, as many as there are tokens");
    }
    if (taken[at]) return wrong(field, value, "\"" + tokens_[at] + "\" has this id too");
    taken[at] = true;
    tokens_[at] = token;
    ids_.emplace(token, static_cast<int32_t>(id));
  }
  return {};
}

void Vocabulary::add(std::string token) {
  ids_.insert_or_assign(token, static_cast<int32_t>(size()));
  tokens_.push_back(std::move(token));
}

ByteTokens Vocabulary::byte_tokens() const {
  ByteTokens result{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    std::array<char, 8> name = {};
    std::snprintf(name.data(), name.size(), "<0x%02X>", byte);
    result[byte] = static_cast<int32_t>(find(name.data()).value_or(-1));
  }
  return result;
}

}  // namespace weft::tokenizers
