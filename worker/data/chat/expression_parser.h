// Expressions of a chat template, by Jinja's precedence.
// Thread safety: one thread. Ownership: borrows the tokens and the Run that bounds the depth.
#pragma once

#include <string>
#include <utility>

#include "worker/data/chat/syntax.h"
#include "worker/data/chat/token_stream.h"

namespace weft::chat {

class ExpressionParser {
 public:
  ExpressionParser(TokenStream& tokens, Run& depth) : tokens_(tokens), depth_(depth) {}

  ExpressionPtr expression();   // with `a if b else c`
  ExpressionPtr alternative();  // without
  // One, or several with commas between them as a tuple.
  ExpressionPtr tuple(bool with_conditional);

 private:
  using Made = std::unique_ptr<Expression>;
  using Parse = ExpressionPtr (ExpressionParser::*)();

  static Made made(Expression::Kind kind, Place place, std::string name = "");
  static void deepen(Expression& to, const Expression& part);
  static void add(Expression& to, ExpressionPtr part);
  // Operands with one of `operators` between them, from the left.
  ExpressionPtr binary(Parse operand, std::initializer_list<std::string_view> operators);
  // Operands with the word `name` between them, as one.
  ExpressionPtr joined(Parse operand, const char* name, Expression::Kind kind);
  ExpressionPtr conjunction();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr factor();
  ExpressionPtr unary(bool with_filters);
  ExpressionPtr primary();
  ExpressionPtr in_parentheses();
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr of);
  ExpressionPtr subscript(ExpressionPtr of);
  ExpressionPtr filters(ExpressionPtr of);
  ExpressionPtr test(ExpressionPtr of);
  void arguments(Expression& call);
  bool ends_tuple() const;

  TokenStream& tokens_;
  Run& depth_;
};

}  // namespace weft::chat
