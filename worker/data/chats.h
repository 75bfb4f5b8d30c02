// The chats of a task's data, rendered by the chat template of its tokenizer.
//
// Thread safety: one thread. Ownership: owns the template once a chat has asked for it.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/chat/chat_template.h"
#include "worker/data/source.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft {

class Chats {
 public:
  // `files`: of the tokenizer, which outlive this. What is wrong with a template is told with the
  // first chat: other data has no use for it.
  explicit Chats(std::span<const TokenizerFile> files) : files_(files) {}
  // `document` is a chat. Errors name its file and line: there is no template; the template's own;
  // those of render_to_learn.
  Result<RenderedChat> render(const Document& document);

 private:
  std::span<const TokenizerFile> files_;
  std::shared_ptr<const ChatTemplate> template_;
};

// Which tokens of a rendered chat are learned: those that have a character of an answer.
std::vector<uint8_t> learned_tokens(const RenderedChat& chat,
                                    std::span<const TokenOffsets> offsets);

}  // namespace weft
