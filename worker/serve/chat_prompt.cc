#include "worker/serve/chat_prompt.h"

#include <ctime>

#include "proto/json/utf8.h"
#include "worker/data/chat/chat_template.h"

namespace weft {
namespace {

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm time{};
  ::localtime_r(&now, &time);
  return time;
}

bool is_special(const Tokenizer& tokenizer, int64_t id) {
  const std::vector<int64_t> one = {id};
  return tokenizer.decode(one, {.skip_special = true}).empty() &&
         !tokenizer.decode(one, {}).empty();
}

// What stands behind an answer, if its first token is a special one. A template that cannot be
// rendered so tells none; the model's own end is left.
std::vector<int64_t> ends_of(const ChatTemplate& chat_template, const Tokenizer& tokenizer) {
  const std::string answer = "An answer.";
  const Conversation conversation = Conversation::of("", "A question?").answered(answer);
  const auto rendered = chat_template.render(conversation, 2, false, fixed_time());
  if (!rendered) return {};
  const size_t at = rendered->text.rfind(answer);
  if (at == std::string::npos) return {};
  const size_t end = rendered->text.find_first_not_of(" \n", at + answer.size());
  if (end == std::string::npos) return {};
  const auto ids = tokenizer.encode(rendered->text.substr(end), false);
  if (!ids || ids->empty() || !is_special(tokenizer, ids->front())) return {};
  return {ids->front()};
}

}  // namespace

Result<ChatPrompt> chat_prompt(const Tokenizer& tokenizer, const std::string& system,
                               const std::string& message) {
  for (const std::string* text : {&system, &message}) {
    if (utf8_first_invalid(*text) != std::string_view::npos) {
      return fail(Status::invalid("message", "", "must be valid UTF-8"));
    }
  }
  WEFT_ASSIGN_OR_RETURN(const auto chat_template, ChatTemplate::find(tokenizer.files()));
  if (!chat_template) return fail(no_chat_template("message"));
  const Conversation conversation = Conversation::of(system, message);
  WEFT_ASSIGN_OR_RETURN(
      RenderedChat rendered,
      chat_template->render(conversation, conversation.messages.size(), true, local_time()));
  return ChatPrompt{std::move(rendered.text), ends_of(*chat_template, tokenizer)};
}

}  // namespace weft
