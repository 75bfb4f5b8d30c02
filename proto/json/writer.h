// JsonWriter: JSON text, piece by piece, for bodies that are more than one message:
//   JsonWriter out;
//   out.begin_object().key("jobs").begin_array();
//   for (const proto::Job& job : jobs) out.message(job);
//   out.end_array().key("next").string(token).end_object();
//   send(out.take());
//
// Thread safety: one thread. Ownership: owns the text until take().
// Invariants: 1. Commas, quotes and escapes are the writer's work. 2. The text is valid UTF-8:
// bytes that are not become U+FFFD. 3. Non-finite numbers become null.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace google::protobuf {
class Message;
}

namespace weft {

struct JsonValue;
struct WriteOptions;

class JsonWriter {
 public:
  explicit JsonWriter(int indent = 0) : indent_(indent) {}

  JsonWriter& begin_object() { return begin('{'); }
  JsonWriter& end_object() { return end('}'); }
  JsonWriter& begin_array() { return begin('['); }
  JsonWriter& end_array() { return end(']'); }
  JsonWriter& key(std::string_view text);
  JsonWriter& string(std::string_view text);
  JsonWriter& integer(int64_t value);
  JsonWriter& unsigned_integer(uint64_t value);
  JsonWriter& number(double value);        // 2 is written "2.0"
  JsonWriter& plain_number(double value);  // 2 is written "2"
  JsonWriter& boolean(bool value);
  JsonWriter& null();
  JsonWriter& value(const JsonValue& value);
  JsonWriter& finished(std::string_view json);  // JSON text that is whole already
  JsonWriter& message(const google::protobuf::Message& message);
  JsonWriter& message(const google::protobuf::Message& message, const WriteOptions& options);

  std::string take() { return std::move(text_); }

 private:
  JsonWriter& begin(char bracket);
  JsonWriter& end(char bracket);
  void before_value();
  void new_line();
  void quoted(std::string_view text);
  JsonWriter& raw(std::string_view text);

  int indent_;
  std::string text_;
  std::vector<bool> has_content_;  // a level: whether something stands in it already
  bool after_key_ = false;
};

// `text` with quotes and escapes.
std::string quote_json(std::string_view text);

// The shortest text that reads back to the same double; from 1e-4 to 1e15 without exponent, whole
// ones with ".0" where `fraction` is set; "null" for NaN and infinities.
std::string format_double(double value, bool fraction);

}  // namespace weft
