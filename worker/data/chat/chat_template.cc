#include "worker/data/chat/chat_template.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "proto/json/parse.h"
#include "worker/data/chat/interpreter.h"
#include "worker/data/chat/parser.h"

namespace weft {
namespace {

using chat::Value;
using nlohmann::json;

bool has_generation(const chat::Body& body) {
  return std::ranges::any_of(body, [](const chat::Statement& statement) {
    return statement.kind == chat::Statement::Kind::kGeneration ||
           std::ranges::any_of(statement.bodies, has_generation);
  });
}

Result<json> parsed(std::span<const TokenizerFile> files, std::string_view name) {
  const auto found = std::ranges::find(files, name, &TokenizerFile::name);
  if (found == files.end()) return json::object();
  ParseLimits limits;
  limits.wide_integers = true;
  auto value = parse_strict(found->content, limits);
  if (!value) return fail(value.error().with_prefix(std::string(name) + ": "));
  if (!value->is_object()) {
    return fail(Status::invalid(std::string(name), "", "must be a JSON object"));
  }
  return value;
}

// A special token is its text, or an object that has it as its content.
void add_names(const json& config, ChatTemplate::Names& names) {
  for (const char* name : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                           "cls_token", "mask_token"}) {
    if (std::ranges::find(names, name, &std::pair<std::string, std::string>::first) !=
        names.end()) {
      continue;
    }
    const auto found = config.find(name);
    if (found == config.end()) continue;
    const json& token =
        found->is_object() && found->contains("content") ? found->at("content") : *found;
    if (token.is_string()) names.emplace_back(name, token.get<std::string>());
  }
}

// The template in a tokenizer_config.json; empty: none.
Result<std::string> configured(const json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {
    for (const json& one : *found) {
      if (one.is_object() && one.value("name", json()) == "default" && one.contains("template") &&
          one.at("template").is_string()) {
        return one.at("template").get<std::string>();
      }
    }
  }
  return fail(Status::invalid("tokenizer_config.json: chat_template", found->type_name(),
                              "must be a string, or a list with one that is named \"default\""));
}

// Bytes behind the assistant's prompt that message `i` adds.
Result<TextSpan> added_by(const ChatTemplate& chat_template, const Conversation& conversation,
                          size_t i, const std::string& whole) {
  const auto refuse = [&](const std::string& rule) {
    return fail(Status::invalid("messages[" + std::to_string(i) + "]",
                                conversation.messages[i].role, rule));
  };
  if (i == 0) return refuse("must not be an assistant's: there is nothing to answer");
  WEFT_ASSIGN_OR_RETURN(const RenderedChat before,
                        chat_template.render(conversation, i, true, fixed_time()));
  WEFT_ASSIGN_OR_RETURN(const RenderedChat behind,
                        chat_template.render(conversation, i + 1, false, fixed_time()));
  for (const RenderedChat* part : {&before, &behind}) {
    if (whole.starts_with(part->text)) continue;
    return refuse(std::string("cannot be told from the rest: what the chat template renders ") +
                  (part == &before ? "before it, with the prompt for it," : "up to it") +
                  " does not begin what it renders of the whole conversation; a template with {% "
                  "generation %} around the assistant's messages tells them");
  }
  if (behind.text.size() < before.text.size()) {
    return refuse("adds nothing to the prompt for it");
  }
  return TextSpan{before.text.size(), behind.text.size()};
}

Result<std::vector<TextSpan>> marked(const Conversation& conversation,
                                     const std::vector<TextSpan>& answers) {
  std::vector<const Conversation::Message*> assistants;
  bool all = true;
  for (const Conversation::Message& message : conversation.messages) {
    if (message.role != "assistant") continue;
    assistants.push_back(&message);
    all = all && message.learned;
  }
  if (all) return answers;
  if (answers.size() != assistants.size()) {
    return fail(
        Status::invalid("messages", std::to_string(assistants.size()) + " of the assistant",
                        "must be as many as the chat template marks with {% generation %}, " +
                            std::to_string(answers.size()) + ", where one has weight 0"));
  }
  std::vector<TextSpan> kept;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (assistants[i]->learned) kept.push_back(answers[i]);
  }
  return kept;
}

}  // namespace

struct ChatTemplate::Tree {
  chat::Body body;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Tree> tree, Names names, bool marks_answers)
    : tree_(std::move(tree)), names_(std::move(names)), marks_answers_(marks_answers) {}
ChatTemplate::~ChatTemplate() = default;

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::parse(std::string_view source,
                                                                Names names) {
  try {
    auto tree = std::make_unique<const Tree>(chat::parse_template(source));
    const bool marks = has_generation(tree->body);
    return std::shared_ptr<const ChatTemplate>(
        new ChatTemplate(std::move(tree), std::move(names), marks));
  } catch (const StatusError& error) {
    return fail(error.status());
  }
}

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::find(
    std::span<const TokenizerFile> files) {
  WEFT_ASSIGN_OR_RETURN(const json config, parsed(files, "tokenizer_config.json"));
  WEFT_ASSIGN_OR_RETURN(const json map, parsed(files, "special_tokens_map.json"));
  const auto own = std::ranges::find(files, "chat_template.jinja", &TokenizerFile::name);
  std::string source;
  if (own != files.end()) {
    source = own->content;
  } else {
    WEFT_ASSIGN_OR_RETURN(source, configured(config));
  }
  if (source.empty()) return nullptr;
  Names names;
  add_names(config, names);
  add_names(map, names);
  return parse(source, std::move(names));
}

Result<RenderedChat> ChatTemplate::render(const Conversation& conversation, size_t count,
                                          bool add_generation_prompt, const std::tm& now) const {
  chat::Run run;
  try {
    std::vector<Value> messages;
    for (size_t i = 0; i < count; ++i) messages.push_back(conversation.messages[i].value);
    chat::Scope scope;
    for (const auto& [name, text] : names_) scope.set(name, Value::text(text));
    scope.set("messages", Value::list(run, std::move(messages)));
    scope.set("tools", conversation.tools);
    scope.set("documents", Value());
    scope.set("add_generation_prompt", Value::boolean(add_generation_prompt));
    std::vector<std::pair<size_t, size_t>> answers;
    chat::Sink sink{chat::Text(run), &answers};
    chat::Interpreter(run, now).render(tree_->body, scope, sink);
    RenderedChat rendered{sink.text.take(), {}};
    for (const auto& [begin, end] : answers) rendered.answers.push_back({begin, end});
    return rendered;
  } catch (const StatusError& error) {
    return fail(error.status());
  }
}

Status no_chat_template(const std::string& field) {
  return Status::invalid(field, "",
                         "needs a chat template, and the model has none: put that of its makers as "
                         "chat_template.jinja beside its tokenizer.json");
}

std::tm fixed_time() {
  std::tm time{};
  time.tm_year = 2024 - 1900;
  time.tm_mon = 6;
  time.tm_mday = 26;
  time.tm_wday = 5;
  time.tm_yday = 207;
  return time;
}

Result<RenderedChat> render_to_learn(const ChatTemplate& chat_template,
                                     const Conversation& conversation) {
  const size_t count = conversation.messages.size();
  WEFT_ASSIGN_OR_RETURN(RenderedChat whole,
                        chat_template.render(conversation, count, false, fixed_time()));
  if (chat_template.marks_answers()) {
    WEFT_ASSIGN_OR_RETURN(whole.answers, marked(conversation, whole.answers));
  } else {
    for (size_t i = 0; i < count; ++i) {
      if (!conversation.messages[i].learned) continue;
      WEFT_ASSIGN_OR_RETURN(const TextSpan answer,
                            added_by(chat_template, conversation, i, whole.text));
      whole.answers.push_back(answer);
    }
  }
  std::erase_if(whole.answers, [](const TextSpan& span) { return span.begin == span.end; });
  if (whole.answers.empty()) {
    return fail(Status::invalid("messages", "", "must have an answer of the assistant to learn"));
  }
  return whole;
}

}  // namespace weft
