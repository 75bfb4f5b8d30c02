// What a model is asked with in a chat.
//
// Thread safety: pure functions but for the clock.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft {

struct ChatPrompt {
  std::string text;           // with what the template starts an answer with
  std::vector<int64_t> ends;  // special tokens that the template puts behind an answer
};

// A message of a user, behind a system's (empty: none), by the chat template of the tokenizer.
// Errors: there is none; the template's own; a message that is not valid UTF-8.
Result<ChatPrompt> chat_prompt(const Tokenizer& tokenizer, const std::string& system,
                               const std::string& message);

}  // namespace weft
