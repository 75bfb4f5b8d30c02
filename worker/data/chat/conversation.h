// A conversation in the format of OpenAI's fine-tuning files: a list of messages, each an object
// with a role and what else the template reads (content, tool_calls, ...).
//
// Thread safety: values, const use of one from one thread. Ownership: owns its values.
// Invariants: 1. as for transformers, a key whose value is null is as if it were not there, and
// reasoning stands under each of its names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "proto/json/value.h"
#include "worker/data/chat/value.h"

namespace weft {

struct Conversation {
  struct Message {
    std::string role;
    bool learned = false;  // an assistant's, unless its weight is 0
    chat::Value value;
  };
  std::vector<Message> messages;
  chat::Value tools;  // None: there are none

  // `tools`: null where the row has none. Errors name the place within `key`: no list, no message,
  // a message that is no object or has no role, a weight other than 0 and 1.
  static Result<Conversation> read(const std::string& key, const JsonValue& messages,
                                   const JsonValue* tools);
  // A user's one message, behind that of the system where it is not empty.
  static Conversation of(const std::string& system, const std::string& message);
  // With the assistant's answer behind it.
  Conversation answered(const std::string& answer) const;

 private:
  void add(const std::string& role, const std::string& content);
};

}  // namespace weft
