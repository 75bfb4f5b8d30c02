// A model's chat template: conversations to the text that the model reads, as transformers'
// apply_chat_template renders them.
//
// Thread safety: const calls from any thread. Ownership: owns the template.
// Invariants: 1. a rendering is that of transformers, or refused with line and column of the
// template. 2. no template and no conversation makes it run without bound (run.h).
#pragma once

#include <ctime>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/chat/conversation.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft {

// Bytes [begin, end) of a rendered text.
struct TextSpan {
  size_t begin = 0, end = 0;
};

struct RenderedChat {
  std::string text;
  std::vector<TextSpan> answers;  // of generation blocks, in order
};

// The error about `field` where there is no template.
Status no_chat_template(const std::string& field);

// What strftime_now() tells where texts must not depend on the day that they are rendered on: 26
// July 2024, which is the date of Llama's templates where there is no clock.
std::tm fixed_time();

class ChatTemplate {
 public:
  // Names like bos_token and what they stand for.
  using Names = std::vector<std::pair<std::string, std::string>>;

  static Result<std::shared_ptr<const ChatTemplate>> parse(std::string_view source, Names names);
  // Of a tokenizer's files: chat_template.jinja, else tokenizer_config.json (of several the one
  // named "default"). Null where they have none.
  static Result<std::shared_ptr<const ChatTemplate>> find(std::span<const TokenizerFile> files);
  ~ChatTemplate();

  // The first `count` messages. Errors: the template's own (raise_exception), of a run beyond its
  // bounds, of what a message lacks.
  Result<RenderedChat> render(const Conversation& conversation, size_t count,
                              bool add_generation_prompt, const std::tm& now) const;
  // Whether it has generation blocks.
  bool marks_answers() const { return marks_answers_; }

 private:
  struct Tree;
  ChatTemplate(std::unique_ptr<const Tree> tree, Names names, bool marks_answers);

  const std::unique_ptr<const Tree> tree_;
  const Names names_;
  const bool marks_answers_;
};

// A conversation as a sample to learn from, at fixed_time(): the whole text, and in `answers` what
// the assistant says in it, but for messages of weight 0. Where the template marks no answers, that
// of message i is what its rendering adds to the rendering of those before it with the prompt for
// an answer. Errors too: those renderings do not begin each other, no answer is left.
Result<RenderedChat> render_to_learn(const ChatTemplate& chat_template,
                                     const Conversation& conversation);

}  // namespace weft
