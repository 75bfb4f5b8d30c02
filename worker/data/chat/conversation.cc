#include "worker/data/chat/conversation.h"

#include <array>
#include <optional>
#include <utility>

namespace weft {
namespace {

using chat::Run;
using chat::Value;
using Entries = std::vector<std::pair<std::string, Value>>;

// What the number is written as is kept: 1.0 is a float.
Value value_of(Run& run, const JsonValue& json) {
  switch (json.kind) {
    case JsonValue::Kind::kNull:
      return Value();
    case JsonValue::Kind::kBool:
      return Value::boolean(json.boolean);
    case JsonValue::Kind::kInteger:
      return Value::integer(json.integer);
    case JsonValue::Kind::kUnsigned:
      throw StatusError(Status::invalid("", json.text, "must be an integer of 64 bits"));
    case JsonValue::Kind::kNumber:
      return Value::number(json.number);
    case JsonValue::Kind::kString:
      return Value::text(json.text);
    case JsonValue::Kind::kArray: {
      std::vector<Value> items;
      for (const JsonValue& item : json.items) items.push_back(value_of(run, item));
      return Value::list(run, std::move(items));
    }
    case JsonValue::Kind::kObject: {
      Entries entries;
      for (const JsonMember& member : json.members) {
        entries.emplace_back(member.key, value_of(run, member.value));
      }
      return Value::dict(run, std::move(entries));
    }
  }
  return Value();
}

void put(Entries& entries, const std::string& key, Value value) {
  for (auto& [name, held] : entries) {
    if (name == key) {
      held = std::move(value);
      return;
    }
  }
  entries.emplace_back(key, std::move(value));
}

// transformers fills in the names under which templates look for an assistant's reasoning.
void name_reasoning(Entries& entries) {
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    for (const auto& entry : entries) {
      if (entry.first != name) continue;
      const Value reasoning = entry.second;
      bool thinking = false;
      for (const auto& other : entries) thinking = thinking || other.first == "thinking";
      if (!thinking) entries.insert(entries.begin(), {"thinking", reasoning});
      put(entries, "reasoning_content", reasoning);
      return;
    }
  }
}

Result<bool> learned(const std::string& at, const JsonValue& message, const std::string& role) {
  const JsonValue* weight = message.find("weight");
  if (weight == nullptr || weight->is_null()) return role == "assistant";
  const double number = weight->is_number() ? weight->as_double() : -1;
  if (number != 0 && number != 1) {
    return fail(Status::invalid(at + ".weight", weight->shown(), "must be 0 or 1"));
  }
  return role == "assistant" && number == 1;
}

Result<Conversation::Message> read_message(const std::string& at, const JsonValue& json) {
  if (!json.is_object()) {
    return fail(Status::invalid(at, json.shown(), "must be an object with a role and a content"));
  }
  const JsonValue* role = json.find("role");
  if (role == nullptr) return fail(Status::invalid(at + ".role", "", "is missing"));
  if (!role->is_string() || role->text.empty()) {
    return fail(Status::invalid(at + ".role", role->shown(), "must be a string that is not empty"));
  }
  WEFT_ASSIGN_OR_RETURN(const bool counts, learned(at, json, role->text));
  Run run;
  Entries entries;
  for (const JsonMember& member : json.members) {
    if (member.value.is_null() || member.key == "weight") continue;
    entries.emplace_back(member.key, value_of(run, member.value));
  }
  name_reasoning(entries);
  return Conversation::Message{role->text, counts, Value::dict(run, std::move(entries))};
}

}  // namespace

Result<Conversation> Conversation::read(const std::string& key, const JsonValue& messages,
                                        const JsonValue* tools) {
  if (!messages.is_array() || messages.items.empty()) {
    return fail(Status::invalid(key, messages.shown(), "must be a list of messages, at least one"));
  }
  Conversation read;
  std::string at = key;
  try {
    for (size_t i = 0; i < messages.items.size(); ++i) {
      at = join_index(key, i);
      WEFT_ASSIGN_OR_RETURN(Message message, read_message(at, messages.items[i]));
      read.messages.push_back(std::move(message));
    }
    at = "tools";
    Run run;
    if (tools != nullptr) read.tools = value_of(run, *tools);
  } catch (const StatusError& error) {
    return fail(Status(error.status()).with_field(at));
  }
  return read;
}

Conversation Conversation::of(const std::string& system, const std::string& message) {
  Conversation made;
  if (!system.empty()) made.add("system", system);
  made.add("user", message);
  return made;
}

Conversation Conversation::answered(const std::string& answer) const {
  Conversation made = *this;
  made.add("assistant", answer);
  return made;
}

void Conversation::add(const std::string& role, const std::string& content) {
  Run run;
  Value value = Value::dict(run, {{"role", Value::text(role)}, {"content", Value::text(content)}});
  messages.push_back({role, role == "assistant", std::move(value)});
}

}  // namespace weft
