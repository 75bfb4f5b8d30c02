// YAML documents read by the same rules, and with the same messages, as JSON.
//
// YAML 1.2, core schema: plain `true`, `null`, `10`, `0x1f`, `3.0e-4` are typed (`010` is 10, `yes`
// is a string); quoted and block scalars are strings. JSON text is accepted too. Refused with their
// line: duplicate keys, anchors, aliases, tags, directives of other versions, more than one
// document, keys that are not scalars, .nan and .inf, integers beyond 64 bits, more than 64 levels,
// invalid UTF-8.
//
// Thread safety: pure functions. Ownership: the result owns its content.
#pragma once

#include <string_view>

#include "proto/base/status.h"
#include "proto/json/message_json.h"
#include "proto/json/value.h"

namespace weft {

inline constexpr ParseLimits kYamlLimits = {size_t{4} << 20, 64};

Result<JsonValue> parse_yaml(std::string_view text, const ParseLimits& limits = kYamlLimits);

// Replaces `into` by what `text` says; unchanged when it fails. `lines` may be null.
Status read_yaml(std::string_view text, google::protobuf::Message& into, LineMap* lines = nullptr);
Status read_yaml(std::string_view text, google::protobuf::Message& into,
                 const ReadOptions& options);

// `--set training.steps=10`, `tasks[0].weight=2`, `model.config.n_layer=2`: replaces one field by a
// YAML scalar or flow value. For a string field the text is taken as it is. An index one past the
// end adds to the list. Unchanged when it fails.
Status set_path(google::protobuf::Message& into, std::string_view path, std::string_view yaml);

}  // namespace weft
