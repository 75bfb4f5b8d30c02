// How bounds are said, in errors and in the reference pages alike.
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>

namespace weft::proto {
class FieldRule;
}

namespace weft {

// "must be between 1 and 64", "must be above 0 and at most 100", "must have at least 2 elements";
// `what` names what is counted, or is empty for a number's own value.
std::string bounds_text(const proto::FieldRule& rule, std::string_view what);
// Without the "must be": "1 to 64", "above 0, at most 100"; empty: no bounds.
std::string bounds_short(const proto::FieldRule& rule);
std::string plain_number(double value);

}  // namespace weft
