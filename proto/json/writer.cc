#include "proto/json/writer.h"

#include <charconv>
#include <cmath>

#include "proto/json/utf8.h"
#include "proto/json/value.h"

namespace weft {

std::string format_double(double value, bool fraction) {
  if (!std::isfinite(value)) return "null";
  char buffer[64];
  double magnitude = std::fabs(value);
  bool whole = std::trunc(value) == value && magnitude < 1e15;
  bool fixed = whole || (magnitude >= 1e-4 && magnitude < 1e15);
  auto end = fixed ? std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed)
                   : std::to_chars(buffer, buffer + sizeof buffer, value);
  std::string text(buffer, end.ptr);
  bool negative_zero = value == 0 && std::signbit(value);
  if (whole && (fraction || negative_zero)) text += ".0";
  return text;
}

std::string quote_json(std::string_view text) { return JsonWriter().string(text).take(); }

void JsonWriter::new_line() {
  if (indent_ == 0) return;
  text_ += '\n';
  text_.append(has_content_.size() * static_cast<size_t>(indent_), ' ');
}

void JsonWriter::before_value() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (has_content_.empty()) return;
  if (has_content_.back()) text_ += ',';
  has_content_.back() = true;
  new_line();
}

JsonWriter& JsonWriter::begin(char bracket) {
  before_value();
  text_ += bracket;
  has_content_.push_back(false);
  return *this;
}

JsonWriter& JsonWriter::end(char bracket) {
  bool had_content = has_content_.back();
  has_content_.pop_back();
  if (had_content) new_line();
  text_ += bracket;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view text) {
  before_value();
  quoted(text);
  text_ += indent_ == 0 ? ":" : ": ";
  after_key_ = true;
  return *this;
}

JsonWriter& JsonWriter::raw(std::string_view text) {
  before_value();
  text_ += text;
  return *this;
}

JsonWriter& JsonWriter::string(std::string_view text) {
  before_value();
  quoted(text);
  return *this;
}

JsonWriter& JsonWriter::integer(int64_t value) { return raw(std::to_string(value)); }
JsonWriter& JsonWriter::unsigned_integer(uint64_t value) { return raw(std::to_string(value)); }
JsonWriter& JsonWriter::number(double value) { return raw(format_double(value, true)); }
JsonWriter& JsonWriter::plain_number(double value) { return raw(format_double(value, false)); }
JsonWriter& JsonWriter::boolean(bool value) { return raw(value ? "true" : "false"); }
JsonWriter& JsonWriter::finished(std::string_view json) { return raw(json); }
JsonWriter& JsonWriter::null() { return raw("null"); }

void JsonWriter::quoted(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  text_ += '"';
  for (size_t at = 0; at < text.size();) {
    char c = text[at];
    size_t length = utf8_sequence_bytes(text.substr(at));
    if (length != 1) {
      if (length == 0) {
        text_ += "\xEF\xBF\xBD";  // U+FFFD
        ++at;
      } else {
        text_ += text.substr(at, length);
        at += length;
      }
      continue;
    }
    ++at;
    switch (c) {
      case '"':
        text_ += "\\\"";
        break;
      case '\\':
        text_ += "\\\\";
        break;
      case '\n':
        text_ += "\\n";
        break;
      case '\r':
        text_ += "\\r";
        break;
      case '\t':
        text_ += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
          text_ += "\\u00";
          text_ += kHex[(c >> 4) & 0xF];
          text_ += kHex[c & 0xF];
        } else {
          text_ += c;
        }
    }
  }
  text_ += '"';
}

JsonWriter& JsonWriter::value(const JsonValue& value) {
  switch (value.kind) {
    case JsonValue::Kind::kNull:
      return null();
    case JsonValue::Kind::kBool:
      return boolean(value.boolean);
    case JsonValue::Kind::kInteger:
      return integer(value.integer);
    case JsonValue::Kind::kUnsigned:
      return unsigned_integer(value.unsigned_integer);
    case JsonValue::Kind::kNumber:
      return number(value.number);
    case JsonValue::Kind::kString:
      return string(value.text);
    case JsonValue::Kind::kArray:
      begin_array();
      for (const JsonValue& item : value.items) this->value(item);
      return end_array();
    case JsonValue::Kind::kObject:
      begin_object();
      for (const JsonMember& member : value.members) key(member.key).value(member.value);
      return end_object();
  }
  return null();
}

}  // namespace weft
