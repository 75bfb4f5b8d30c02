// weft-render: chat templates under test, for comparisons from outside. Reads JSON lines
// {"template", "names": {"bos_token": ...}, "messages", "tools", "add_generation_prompt"} and
// writes for each {"text", "answers": [[begin, end], ...]}, in code points, or {"error": ...}.
#include <iostream>
#include <string>

#include "proto/json/parse.h"
#include "proto/json/writer.h"
#include "worker/data/chat/chat_template.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft {
namespace {

Result<std::string> answer(const JsonValue& request) {
  ChatTemplate::Names names;
  for (const JsonMember& token : request.find("names")->members) {
    names.emplace_back(token.key, token.value.text);
  }
  WEFT_ASSIGN_OR_RETURN(const auto made,
                        ChatTemplate::parse(request.find("template")->text, std::move(names)));
  WEFT_ASSIGN_OR_RETURN(
      const Conversation conversation,
      Conversation::read("messages", *request.find("messages"), request.find("tools")));
  WEFT_ASSIGN_OR_RETURN(const RenderedChat chat,
                        made->render(conversation, conversation.messages.size(),
                                     request.find("add_generation_prompt")->boolean, fixed_time()));
  const auto characters = [&](size_t bytes) {
    return tokenizers::count_code_points(std::string_view(chat.text).substr(0, bytes));
  };
  JsonWriter json;
  json.begin_object().key("text").string(chat.text).key("answers").begin_array();
  for (const TextSpan& span : chat.answers) {
    json.begin_array().integer(characters(span.begin)).integer(characters(span.end)).end_array();
  }
  json.end_array().end_object();
  return json.take();
}

int run() {
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) {
    const auto request = parse_json(line);
    const Result<std::string> made =
        request ? answer(*request) : Result<std::string>(fail(request.error()));
    if (made) {
      std::cout << *made << "\n";
    } else {
      JsonWriter json;
      json.begin_object().key("error").string(made.error().to_string()).end_object();
      std::cout << json.take() << "\n";
    }
  }
  return 0;
}

}  // namespace
}  // namespace weft

int main() { return weft::run(); }
