// Defaults and bounds from the schema's FieldRule options.
//
// A default is applied where a field is absent, never over a zero that was written: fields with a
// default are `optional` in the schema, so both readers leave a trace of what was written.
//
// Thread safety: pure functions. Ownership: none.
#pragma once

#include "proto/base/status.h"

namespace google::protobuf {
class Message;
}

namespace weft {

class LineMap;

// Fills every absent field that has a default, in sub-messages too; a sub-message that is absent,
// not required and has defaults below it is made. Fails only where the schema's own default is
// wrong.
Status apply_defaults(google::protobuf::Message& message);

// required, min, max, above, below and pattern of every field, in the schema's order; the first
// breach comes back with field, value, rule and, where `lines` knows it, line. Numbers: bounds of
// the value; lists: of the count; strings: of the characters. An absent field is only asked whether
// it is required.
Status check_rules(const google::protobuf::Message& message, const LineMap* lines = nullptr);

}  // namespace weft
