#include "worker/data/chat/lexer.h"

#include <algorithm>
#include <charconv>

#include "proto/json/utf8.h"
#include "worker/data/chat/string_literal.h"
#include "worker/data/chat/text.h"

namespace weft::chat {
namespace {

using Kind = Token::Kind;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool starts_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// "\r\n" and "\r" as "\n", without the newline at the end.
std::string normalized(std::string_view source) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text += source[i];
    } else {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(source) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) read_root();
    add(Kind::kEnd, at_, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return text_.substr(at_); }
  bool next_is(std::string_view word) const { return rest().starts_with(word); }

  Place place_of(size_t at) {
    for (; counted_ < at; ++counted_) {
      if (text_[counted_] != '\n') continue;
      ++line_;
      line_start_ = counted_ + 1;
    }
    return {line_, static_cast<int>(at - line_start_) + 1};
  }
  [[noreturn]] void fail(size_t at, const std::string& message) { refuse(place_of(at), message); }

  Token& add(Kind kind, size_t at, std::string text) {
    Token& token = tokens_.emplace_back();
    token.kind = kind;
    token.place = place_of(at);
    token.text = std::move(text);
    return token;
  }

  size_t next_tag() const {
    size_t at = at_;
    while ((at = text_.find('{', at)) != std::string_view::npos) {
      if (at + 1 < text_.size() &&
          std::string_view("{%#").find(text_[at + 1]) != std::string_view::npos) {
        return at;
      }
      ++at;
    }
    return text_.size();
  }

  // Text up to the next tag, and that.
  void read_root() {
    const size_t start = at_, tag = next_tag();
    std::string_view data = text_.substr(start, tag - start);
    if (tag == text_.size()) {
      add(Kind::kData, start, std::string(data));
      at_ = tag;
      return;
    }
    const char type = text_[tag + 1];
    const char sign = tag + 2 < text_.size() ? text_[tag + 2] : ' ';
    if (sign == '-') {
      data = stripped(data, Side::kRight);
    } else if (sign != '+' && type != '{') {
      data = without_indent(data);
    }
    if (!data.empty()) add(Kind::kData, start, std::string(data));
    at_ = tag + (sign == '-' || sign == '+' ? 3 : 2);
    if (type == '#') return skip_comment(tag);
    add(type == '{' ? Kind::kVariableBegin : Kind::kBlockBegin, tag, "");
    read_tag(tag, type == '{');
  }

  // lstrip_blocks: without the white space between the start of a line and a block.
  std::string_view without_indent(std::string_view data) const {
    const size_t newline = data.rfind('\n');
    if (newline == std::string_view::npos && !line_starts_) return data;
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    return stripped(data.substr(line), Side::kRight).empty() ? data.substr(0, line) : data;
  }

  void skip_comment(size_t tag) {
    const size_t end = text_.find("#}", at_);
    if (end == std::string_view::npos) fail(tag, "the comment has no end");
    const char sign = end > at_ ? text_[end - 1] : ' ';
    at_ = end + 2;
    finish(sign);
  }

  // Behind a tag: what `-` strips, or trim_blocks where there is no sign.
  void finish(char sign, bool trims = true) {
    if (sign == '-') {
      at_ = text_.size() - stripped(rest(), Side::kLeft).size();
    } else if (sign != '+' && trims && next_is("\n")) {
      ++at_;
    }
    line_starts_ = text_[at_ - 1] == '\n';
  }

  bool read_end(bool variable) {
    const std::string_view end = variable ? "}}" : "%}";
    const bool sign =
        (next_is("-") || (!variable && next_is("+"))) && rest().substr(1).starts_with(end);
    if (!sign && !next_is(end)) return false;
    add(variable ? Kind::kVariableEnd : Kind::kBlockEnd, at_, std::string(end));
    const char with = sign ? text_[at_] : ' ';
    at_ += sign ? 3 : 2;
    finish(with, !variable);
    return true;
  }

  void read_tag(size_t tag, bool variable) {
    std::vector<char> open;
    while (at_ < text_.size()) {
      if (open.empty() && read_end(variable)) return;
      const std::string_view behind = stripped(rest(), Side::kLeft);
      if (behind.size() < rest().size()) {
        at_ = text_.size() - behind.size();
        continue;
      }
      if (is_digit(text_[at_])) {
        read_number();
      } else if (starts_name(text_[at_])) {
        size_t end = at_;
        while (end < text_.size() && (starts_name(text_[end]) || is_digit(text_[end]))) ++end;
        add(Kind::kName, at_, std::string(text_.substr(at_, end - at_)));
        at_ = end;
      } else if (text_[at_] == '\'' || text_[at_] == '"') {
        read_string();
      } else {
        read_operator(open);
      }
    }
    fail(tag, variable ? "the {{ has no }}" : "the {% has no %}");
  }

  size_t digits_from(size_t at) const {
    while (at < text_.size() && is_digit(text_[at])) ++at;
    return at;
  }

  void read_number() {
    const size_t whole = digits_from(at_);
    size_t end = whole;
    // `a.0.name` counts items, and has no fraction.
    const bool counts =
        !tokens_.empty() && tokens_.back().text == "." && tokens_.back().kind == Kind::kOperator;
    if (!counts && end < text_.size() && text_[end] == '.') {
      const size_t fraction = digits_from(end + 1);
      if (fraction > end + 1) end = fraction;
    }
    if (!counts && end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      const size_t sign =
          end + 1 < text_.size() && (text_[end + 1] == '-' || text_[end + 1] == '+');
      const size_t exponent = digits_from(end + 1 + sign);
      if (exponent > end + 1 + sign) end = exponent;
    }
    const std::string digits(text_.substr(at_, end - at_));
    if (end < text_.size() && (starts_name(text_[end]) || is_digit(text_[end]))) {
      fail(at_, "a number like this is not supported: " + digits + text_[end]);
    }
    if (digits.size() > 1 && digits[0] == '0' && end == whole) {
      fail(at_, "a number must not begin with 0: " + digits);
    }
    Token& token = add(end == whole ? Kind::kInteger : Kind::kFloat, at_, digits);
    const char* last = token.text.data() + token.text.size();
    const auto read = end == whole ? std::from_chars(token.text.data(), last, token.integer)
                                   : std::from_chars(token.text.data(), last, token.number);
    if (read.ec != std::errc()) fail(at_, "the number is out of range: " + digits);
    at_ = end;
  }

  void read_string() {
    const size_t start = at_;
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != text_[start]) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) fail(start, "the string has no end");
    const std::string_view written = text_.substr(start + 1, end - start - 1);
    Token& token = add(Kind::kString, start, "");
    token.text = unescaped(written, token.place);
    at_ = end + 1;
  }

  void read_operator(std::vector<char>& open) {
    static constexpr std::string_view kOperators[] = {
        "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    const auto* const found =
        std::ranges::find_if(kOperators, [&](std::string_view one) { return next_is(one); });
    if (found == std::end(kOperators)) fail(at_, "starts nothing: " + shown());
    const char c = found->front();
    if (c == '{' || c == '(' || c == '[') open.push_back(c == '{' ? '}' : c == '(' ? ')' : ']');
    if (c == '}' || c == ')' || c == ']') {
      if (open.empty() || open.back() != c) fail(at_, std::string("closes nothing: ") + c);
      open.pop_back();
    }
    add(Kind::kOperator, at_, std::string(*found));
    at_ += found->size();
  }

  std::string shown() const {
    return std::string(rest().substr(0, std::max<size_t>(1, utf8_sequence_bytes(rest()))));
  }

  const std::string_view text_;
  size_t at_ = 0, counted_ = 0, line_start_ = 0;
  int line_ = 1;
  bool line_starts_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokens_of(std::string_view source) {
  if (source.size() > kTemplateBytesMax) {
    refuse({}, "has " + std::to_string(source.size()) + " bytes, at most " +
                   std::to_string(kTemplateBytesMax));
  }
  if (utf8_first_invalid(source) != std::string_view::npos) refuse({}, "is not valid UTF-8");
  const std::string text = normalized(source);
  return Lexer(text).run();
}

}  // namespace weft::chat
