// The parsers' place in the tokens.
// Thread safety: one thread. Ownership: owns the tokens.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "worker/data/chat/lexer.h"
#include "worker/data/chat/run.h"

namespace weft::chat {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& now() const { return tokens_[at_]; }
  bool is(Token::Kind kind) const { return now().kind == kind; }
  bool is_name(std::string_view name) const { return is(Token::Kind::kName) && now().text == name; }
  bool is_operator(std::string_view text) const { return is_operator_at(at_, text); }
  bool is_behind(std::string_view text) const { return is_operator_at(at_ + 1, text); }
  bool is_name_behind(std::string_view name) const {
    return at_ + 1 < tokens_.size() && tokens_[at_ + 1].kind == Token::Kind::kName &&
           tokens_[at_ + 1].text == name;
  }
  const Token& take() {
    const Token& token = tokens_[at_];
    if (token.kind != Token::Kind::kEnd) ++at_;
    return token;
  }
  bool skip_name(std::string_view name) { return is_name(name) && (take(), true); }
  bool skip_operator(std::string_view text) { return is_operator(text) && (take(), true); }
  void expect_operator(std::string_view text) {
    if (!skip_operator(text)) refuse_expected("'" + std::string(text) + "'");
  }
  void expect_name(std::string_view name) {
    if (!skip_name(name)) refuse_expected("'" + std::string(name) + "'");
  }
  void expect(Token::Kind kind, std::string_view what) {
    if (!is(kind)) refuse_expected(std::string(what));
    take();
  }
  std::string take_name(std::string_view what) {
    if (!is(Token::Kind::kName)) refuse_expected(std::string(what));
    return take().text;
  }
  [[noreturn]] void refuse_expected(const std::string& what) const {
    const std::string found = is(Token::Kind::kEnd)    ? "the template ends"
                              : is(Token::Kind::kData) ? "there is text"
                              : now().text.empty()     ? "there is a tag"
                                                       : "there is '" + now().text + "'";
    refuse(now().place, what + " is expected, and " + found);
  }

 private:
  bool is_operator_at(size_t at, std::string_view text) const {
    return at < tokens_.size() && tokens_[at].kind == Token::Kind::kOperator &&
           tokens_[at].text == text;
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace weft::chat
