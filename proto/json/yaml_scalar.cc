#include "proto/json/yaml_scalar.h"

#include <charconv>
#include <cmath>
#include <cstdlib>

namespace weft {
namespace {

using Kind = JsonValue::Kind;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

size_t skip_digits(std::string_view text, size_t at) {
  while (at < text.size() && is_digit(text[at])) ++at;
  return at;
}

size_t skip_sign(std::string_view text, size_t at) {
  return at < text.size() && (text[at] == '-' || text[at] == '+') ? at + 1 : at;
}

// [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?
bool is_float(std::string_view text) {
  size_t start = skip_sign(text, 0);
  size_t at = skip_digits(text, start);
  size_t digits = at - start;
  if (at < text.size() && text[at] == '.') {
    size_t end = skip_digits(text, at + 1);
    digits += end - at - 1;
    at = end;
  }
  if (digits == 0) return false;
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    size_t exponent = skip_sign(text, at + 1);
    at = skip_digits(text, exponent);
    if (at == exponent) return false;
  }
  return at == text.size();
}

bool is_non_finite(std::string_view text) {
  if (text == ".nan" || text == ".NaN" || text == ".NAN") return true;
  text.remove_prefix(skip_sign(text, 0));
  return text == ".inf" || text == ".Inf" || text == ".INF";
}

// The integer's digits and base; base 0: it is none.
int integer_base(std::string_view text, std::string_view* digits, bool* negative) {
  *negative = false;
  if (text.starts_with("0o") || text.starts_with("0x")) {
    int base = text[1] == 'o' ? 8 : 16;
    *digits = text.substr(2);
    std::string_view allowed = base == 8 ? "01234567" : "0123456789abcdefABCDEF";
    bool fits = !digits->empty() && digits->find_first_not_of(allowed) == std::string_view::npos;
    return fits ? base : 0;
  }
  size_t start = skip_sign(text, 0);
  *negative = start == 1 && text[0] == '-';
  *digits = text.substr(start);
  return !digits->empty() && skip_digits(*digits, 0) == digits->size() ? 10 : 0;
}

JsonValue integer_value(std::string_view digits, int base, bool negative, std::string* wrong) {
  JsonValue value;
  uint64_t magnitude = 0;
  auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), magnitude, base);
  uint64_t limit = uint64_t{1} << 63;
  if (parsed.ec != std::errc() || (negative && magnitude > limit)) {
    *wrong = "is an integer that does not fit 64 bits";
  } else if (negative) {
    value.kind = Kind::kInteger;
    value.integer = static_cast<int64_t>(0 - magnitude);
  } else if (magnitude < limit) {
    value.kind = Kind::kInteger;
    value.integer = static_cast<int64_t>(magnitude);
  } else {
    value.kind = Kind::kUnsigned;
    value.unsigned_integer = magnitude;
  }
  return value;
}

}  // namespace

JsonValue string_value(std::string_view text) {
  JsonValue value;
  value.kind = Kind::kString;
  value.text = text;
  return value;
}

JsonValue resolve_plain_scalar(std::string_view text, std::string* wrong) {
  JsonValue value;
  if (text.empty() || text == "null" || text == "Null" || text == "NULL" || text == "~") {
    return value;
  }
  bool is_true = text == "true" || text == "True" || text == "TRUE";
  if (is_true || text == "false" || text == "False" || text == "FALSE") {
    value.kind = Kind::kBool;
    value.boolean = is_true;
    return value;
  }
  std::string_view digits;
  bool negative = false;
  if (int base = integer_base(text, &digits, &negative); base != 0) {
    value = integer_value(digits, base, negative, wrong);
  } else if (is_non_finite(text)) {
    *wrong = "must be a finite number";
  } else if (is_float(text)) {
    value.kind = Kind::kNumber;
    value.number = std::strtod(std::string(text).c_str(), nullptr);
    if (!std::isfinite(value.number)) *wrong = "is a number beyond the range of a double";
  } else {
    value.kind = Kind::kString;
  }
  value.text = text;
  return value;
}

}  // namespace weft
