// Protobuf messages as JSON, read strictly and written for people: the one mapping behind REST
// bodies, job files, stored documents and --json.
//
// The mapping: fields by their proto names; int64 and uint64 as JSON numbers; enums without prefix
// in lower case, UNSPECIFIED left out; google.protobuf.Struct as plain JSON, whose whole numbers
// are written without ".0"; maps as objects; bytes as base64; doubles as the shortest text that
// reads back to the same value, NaN and infinities as null. Zeros, false, empty strings and empty
// lists are written; an `optional` field that is not set, and a list that its rule says may not be
// empty, are left out.
//
// Refused on reading: all that proto/json/parse.h refuses, unknown keys (with the nearest known
// one), null, a wrong type, an integer with fraction or exponent, a number out of its type's range,
// unknown enum values, two members of one oneof, output_only fields. Each error has the field's
// path
// ("tasks[1].data.train"), the value, the rule and the line.
//
// Thread safety: pure functions. Ownership: none.
// Invariants: 1. read_json(write_json(m)) gives m again (where no double is NaN or infinite). 2.
// When read_json fails, the message is as it was.
#pragma once

#include <string>
#include <string_view>

#include "proto/base/status.h"
#include "proto/json/parse.h"

namespace google::protobuf {
class Message;
}

namespace weft {

class LineMap;
struct JsonValue;

struct ReadOptions {
  // Fields that only the service sets are accepted.
  bool allow_output_only = false;
  // For a client reading a service's answer: unknown keys are skipped, null means absent, and
  // output_only fields are accepted.
  bool lenient = false;
  LineMap* lines = nullptr;  // filled in, where wanted
  ParseLimits limits = {size_t{16} << 20, 64};
};

struct WriteOptions {
  int indent = 0;              // spaces a level; 0: one line
  bool unset_as_null = false;  // unset messages and optional fields as null instead of left out
};

// Replaces `into` by what `text` says.
Status read_json(std::string_view text, google::protobuf::Message& into,
                 const ReadOptions& options = {});

// The same for a value that is parsed already.
Status read_value(const JsonValue& value, google::protobuf::Message& into,
                  const ReadOptions& options = {});

std::string write_json(const google::protobuf::Message& message, const WriteOptions& options = {});

}  // namespace weft
