#include "proto/json/parse.h"

#include <iterator>
#include <nlohmann/json.hpp>

#include "proto/json/builder.h"
#include "proto/json/value.h"

namespace weft {
namespace {

// Reads bytes for nlohmann's lexer and counts lines on the way; its events carry no position.
struct LineCounter {
  int line = 1;
  bool at_newline = false;
  // The lexer reads one character beyond a number, so a newline just read does not count yet.
  int current() const { return at_newline ? line - 1 : line; }
};

class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, LineCounter* counter) : at_(at), counter_(counter) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    counter_->at_newline = *at_ == '\n';
    if (counter_->at_newline) ++counter_->line;
    ++at_;
    return *this;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  LineCounter* counter_;
};

Status syntax_error(std::string_view detail, int line) {
  Status status(Code::kInvalidArgument, "not valid JSON: " + shortened(detail, 200));
  status.with_rule("must be valid JSON (RFC 8259)").with_line(line);
  return status;
}

// Receives nlohmann's events.
class Handler {
 public:
  Handler(ValueBuilder& builder, const LineCounter& counter, bool wide_integers)
      : builder_(builder), counter_(counter), wide_integers_(wide_integers) {}

  bool null() { return scalar({}); }
  bool boolean(bool value) {
    JsonValue result;
    result.kind = JsonValue::Kind::kBool;
    result.boolean = value;
    return scalar(std::move(result));
  }
  bool number_integer(int64_t value) {
    JsonValue result;
    result.kind = JsonValue::Kind::kInteger;
    result.integer = value;
    result.text = std::to_string(value);
    return scalar(std::move(result));
  }
  bool number_unsigned(uint64_t value) {
    if (value <= static_cast<uint64_t>(INT64_MAX)) {
      return number_integer(static_cast<int64_t>(value));
    }
    JsonValue result;
    result.kind = JsonValue::Kind::kUnsigned;
    result.unsigned_integer = value;
    result.text = std::to_string(value);
    return scalar(std::move(result));
  }
  bool number_float(double value, const std::string& written) {
    if (!wide_integers_ && written.find_first_of(".eE") == std::string::npos) {
      return builder_.refuse(shortened(written), "is an integer that does not fit 64 bits",
                             counter_.current());
    }
    JsonValue result;
    result.kind = JsonValue::Kind::kNumber;
    result.number = value;
    result.text = written;
    return scalar(std::move(result));
  }
  bool string(std::string& value) {
    JsonValue result;
    result.kind = JsonValue::Kind::kString;
    result.text = std::move(value);
    return scalar(std::move(result));
  }
  bool binary(std::vector<uint8_t>&) { return false; }  // no such thing in JSON text
  bool start_object(size_t) { return builder_.start(JsonValue::Kind::kObject, counter_.current()); }
  bool end_object() { return builder_.end(); }
  bool start_array(size_t) { return builder_.start(JsonValue::Kind::kArray, counter_.current()); }
  bool end_array() { return builder_.end(); }
  bool key(std::string& text) { return builder_.key(std::move(text), counter_.current()); }

  bool parse_error(size_t, const std::string& token, const nlohmann::json::exception& error) {
    if (error.id == 406) {
      builder_.refuse(shortened(token), "is a number beyond the range of a double",
                      counter_.current());
      return false;
    }
    std::string_view what = error.what();
    size_t at = what.find("syntax error");
    if (at == std::string_view::npos) at = what.find("column");
    detail = at == std::string_view::npos ? what : what.substr(at);
    return false;
  }

  std::string detail;

 private:
  bool scalar(JsonValue value) {
    value.line = counter_.current();
    return builder_.scalar(std::move(value));
  }

  ValueBuilder& builder_;
  const LineCounter& counter_;
  const bool wide_integers_;
};

nlohmann::json convert(JsonValue&& value) {
  switch (value.kind) {
    case JsonValue::Kind::kNull:
      return nullptr;
    case JsonValue::Kind::kBool:
      return value.boolean;
    case JsonValue::Kind::kInteger:
      if (value.integer >= 0) return static_cast<uint64_t>(value.integer);
      return value.integer;
    case JsonValue::Kind::kUnsigned:
      return value.unsigned_integer;
    case JsonValue::Kind::kNumber:
      return value.number;
    case JsonValue::Kind::kString:
      return std::move(value.text);
    case JsonValue::Kind::kArray: {
      nlohmann::json array = nlohmann::json::array();
      for (JsonValue& item : value.items) array.push_back(convert(std::move(item)));
      return array;
    }
    case JsonValue::Kind::kObject: {
      nlohmann::json object = nlohmann::json::object();
      for (JsonMember& member : value.members) {
        object.emplace(std::move(member.key), convert(std::move(member.value)));
      }
      return object;
    }
  }
  return nullptr;
}

}  // namespace

Result<JsonValue> parse_json(std::string_view text, const ParseLimits& limits) {
  if (text.size() > limits.bytes_max) {
    return fail(Status(Code::kResourceExhausted, "the document is too large")
                    .with_value(std::to_string(text.size()) + " bytes")
                    .with_rule("must be at most " + std::to_string(limits.bytes_max) + " bytes"));
  }
  LineCounter counter;
  ValueBuilder builder(limits.depth_max);
  Handler handler(builder, counter, limits.wide_integers);
  bool parsed =
      nlohmann::json::sax_parse(CountingIterator(text.data(), &counter),
                                CountingIterator(text.data() + text.size(), &counter), &handler);
  if (!builder.status().ok()) return fail(builder.status());
  if (!parsed) return fail(syntax_error(handler.detail, counter.current()));
  return builder.take();
}

Result<nlohmann::json> parse_strict(std::string_view text, const ParseLimits& limits) {
  WEFT_ASSIGN_OR_RETURN(JsonValue value, parse_json(text, limits));
  return convert(std::move(value));
}

}  // namespace weft
