#include "worker/data/chat/expression_parser.h"

#include <algorithm>
#include <memory>

#include "worker/data/chat/filters.h"
#include "worker/data/chat/tests.h"

namespace weft::chat {

using Kind = Expression::Kind;
using TokenKind = Token::Kind;

ExpressionParser::Made ExpressionParser::made(Kind kind, Place place, std::string name) {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->place = place;
  expression->name = std::move(name);
  return expression;
}

void ExpressionParser::deepen(Expression& to, const Expression& part) {
  to.depth = std::max(to.depth, part.depth + 1);
  if (to.depth > kDepthMax) refuse(to.place, "is nested too deep");
}

void ExpressionParser::add(Expression& to, ExpressionPtr part) {
  if (part) deepen(to, *part);
  to.parts.push_back(std::move(part));
}

ExpressionPtr ExpressionParser::expression() {
  const Level level(depth_);
  depth_.place = tokens_.now().place;
  ExpressionPtr left = alternative();
  while (tokens_.is_name("if")) {
    Made chosen = made(Kind::kConditional, tokens_.take().place);
    add(*chosen, alternative());
    add(*chosen, std::move(left));
    if (tokens_.skip_name("else")) add(*chosen, expression());
    left = std::move(chosen);
  }
  return left;
}

bool ExpressionParser::ends_tuple() const {
  return tokens_.is(TokenKind::kVariableEnd) || tokens_.is(TokenKind::kBlockEnd) ||
         tokens_.is_operator(")");
}

ExpressionPtr ExpressionParser::tuple(bool with_conditional) {
  const Place place = tokens_.now().place;
  ExpressionPtr first = with_conditional ? expression() : alternative();
  if (!tokens_.is_operator(",")) return first;
  Made all = made(Kind::kTuple, place);
  add(*all, std::move(first));
  while (tokens_.skip_operator(",") && !ends_tuple()) {
    add(*all, with_conditional ? expression() : alternative());
  }
  return all;
}

ExpressionPtr ExpressionParser::joined(Parse operand, const char* name, Kind kind) {
  ExpressionPtr left = (this->*operand)();
  if (!tokens_.is_name(name)) return left;
  Made all = made(kind, tokens_.now().place);
  add(*all, std::move(left));
  while (tokens_.skip_name(name)) add(*all, (this->*operand)());
  return all;
}

ExpressionPtr ExpressionParser::alternative() {
  return joined(&ExpressionParser::conjunction, "or", Kind::kOr);
}

ExpressionPtr ExpressionParser::conjunction() {
  return joined(&ExpressionParser::negation, "and", Kind::kAnd);
}

ExpressionPtr ExpressionParser::negation() {
  if (!tokens_.is_name("not")) return comparison();
  const Level level(depth_);
  Made inverse = made(Kind::kNot, tokens_.take().place);
  add(*inverse, negation());
  return inverse;
}

ExpressionPtr ExpressionParser::comparison() {
  static constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">="};
  ExpressionPtr left = sum();
  Made chain;
  while (true) {
    const Place place = tokens_.now().place;
    std::string name;
    if (tokens_.is(TokenKind::kOperator) &&
        std::ranges::find(kOperators, tokens_.now().text) != std::end(kOperators)) {
      name = tokens_.take().text;
    } else if (tokens_.skip_name("in")) {
      name = "in";
    } else if (tokens_.is_name("not") && tokens_.is_name_behind("in")) {
      tokens_.take();
      tokens_.take();
      name = "not in";
    } else {
      break;
    }
    if (!chain) {
      chain = made(Kind::kCompare, place);
      add(*chain, std::move(left));
    }
    chain->operators.push_back(std::move(name));
    add(*chain, sum());
  }
  if (chain) return chain;
  return left;
}

ExpressionPtr ExpressionParser::binary(Parse operand,
                                       std::initializer_list<std::string_view> operators) {
  ExpressionPtr left = (this->*operand)();
  while (tokens_.is(TokenKind::kOperator) &&
         std::ranges::find(operators, tokens_.now().text) != operators.end()) {
    const Token& token = tokens_.take();
    Made both = made(Kind::kBinary, token.place, token.text);
    add(*both, std::move(left));
    add(*both, (this->*operand)());
    left = std::move(both);
  }
  return left;
}

ExpressionPtr ExpressionParser::sum() {
  return binary(&ExpressionParser::concatenation, {"+", "-"});
}

ExpressionPtr ExpressionParser::concatenation() {
  ExpressionPtr left = product();
  if (!tokens_.is_operator("~")) return left;
  Made all = made(Kind::kConcat, tokens_.now().place);
  add(*all, std::move(left));
  while (tokens_.skip_operator("~")) add(*all, product());
  return all;
}

ExpressionPtr ExpressionParser::product() {
  return binary(&ExpressionParser::factor, {"*", "/", "//", "%"});
}

ExpressionPtr ExpressionParser::factor() {
  ExpressionPtr whole = unary(true);
  if (tokens_.is_operator("**")) refuse(tokens_.now().place, "** is not supported");
  return whole;
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const Level level(depth_);
  ExpressionPtr of;
  if (tokens_.is_operator("-") || tokens_.is_operator("+")) {
    const Token& token = tokens_.take();
    Made signed_one = made(token.text == "-" ? Kind::kNegative : Kind::kPositive, token.place);
    add(*signed_one, unary(false));
    of = std::move(signed_one);
  } else {
    of = primary();
  }
  of = postfix(std::move(of));
  return with_filters ? filters(std::move(of)) : std::move(of);
}

ExpressionPtr ExpressionParser::primary() {
  const Token& token = tokens_.now();
  depth_.place = token.place;
  Made one = made(Kind::kConstant, token.place);
  if (token.kind == TokenKind::kName) {
    tokens_.take();
    if (token.text == "true" || token.text == "True") {
      one->constant = Value::boolean(true);
    } else if (token.text == "false" || token.text == "False") {
      one->constant = Value::boolean(false);
    } else if (token.text != "none" && token.text != "None") {
      one->kind = Kind::kName;
      one->name = token.text;
    }
    return one;
  }
  if (token.kind == TokenKind::kString) {
    std::string text = tokens_.take().text;
    while (tokens_.is(TokenKind::kString)) text += tokens_.take().text;
    one->constant = Value::text(std::move(text));
    return one;
  }
  if (token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat) {
    tokens_.take();
    one->constant = token.kind == TokenKind::kInteger ? Value::integer(token.integer)
                                                      : Value::number(token.number);
    return one;
  }
  if (tokens_.is_operator("(")) return in_parentheses();
  if (tokens_.is_operator("[")) return list();
  if (tokens_.is_operator("{")) return dict();
  tokens_.refuse_expected("an expression");
}

ExpressionPtr ExpressionParser::in_parentheses() {
  const Place place = tokens_.take().place;
  if (tokens_.skip_operator(")")) return made(Kind::kTuple, place);
  ExpressionPtr all = tuple(true);
  tokens_.expect_operator(")");
  return all;
}

ExpressionPtr ExpressionParser::list() {
  Made all = made(Kind::kList, tokens_.take().place);
  while (!tokens_.is_operator("]")) {
    add(*all, expression());
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator("]");
  return all;
}

ExpressionPtr ExpressionParser::dict() {
  Made all = made(Kind::kDict, tokens_.take().place);
  while (!tokens_.is_operator("}")) {
    add(*all, expression());
    tokens_.expect_operator(":");
    add(*all, expression());
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator("}");
  return all;
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr of) {
  while (tokens_.is_operator(".") || tokens_.is_operator("[") || tokens_.is_operator("(")) {
    if (tokens_.is_operator("(")) {
      Made call = made(Kind::kCall, tokens_.now().place);
      add(*call, std::move(of));
      arguments(*call);
      of = std::move(call);
    } else {
      of = subscript(std::move(of));
    }
  }
  return of;
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr of) {
  const Token& token = tokens_.take();
  if (token.text == ".") {
    if (tokens_.is(TokenKind::kInteger)) {
      Made item = made(Kind::kItem, token.place);
      add(*item, std::move(of));
      add(*item, primary());
      return item;
    }
    Made attribute = made(Kind::kAttribute, token.place, tokens_.take_name("a name"));
    add(*attribute, std::move(of));
    return attribute;
  }
  ExpressionPtr first = tokens_.is_operator(":") ? nullptr : expression();
  const bool slice = tokens_.is_operator(":");
  Made item = made(slice ? Kind::kSlice : Kind::kItem, token.place);
  add(*item, std::move(of));
  add(*item, std::move(first));
  while (slice && item->parts.size() < 4) {
    const bool more =
        tokens_.skip_operator(":") && !tokens_.is_operator(":") && !tokens_.is_operator("]");
    add(*item, more ? expression() : nullptr);
  }
  tokens_.expect_operator("]");
  return item;
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr of) {
  while (true) {
    if (tokens_.is_operator("|")) {
      tokens_.take();
      const Place place = tokens_.now().place;
      Made filter = made(Kind::kFilter, place, tokens_.take_name("a filter"));
      if (!is_filter(filter->name)) {
        refuse(filter->place, "the filter '" + filter->name + "' is not supported");
      }
      add(*filter, std::move(of));
      if (tokens_.is_operator("(")) arguments(*filter);
      of = std::move(filter);
    } else if (tokens_.is_name("is")) {
      of = test(std::move(of));
    } else if (tokens_.is_operator("(")) {
      Made call = made(Kind::kCall, tokens_.now().place);
      add(*call, std::move(of));
      arguments(*call);
      of = std::move(call);
    } else {
      break;
    }
  }
  return of;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr of) {
  const Place place = tokens_.take().place;
  const bool negated = tokens_.skip_name("not");
  const Place at = tokens_.now().place;
  Made asked = made(Kind::kTest, at, tokens_.take_name("a test"));
  if (!is_test(asked->name)) {
    refuse(asked->place, "the test '" + asked->name + "' is not supported");
  }
  add(*asked, std::move(of));
  const auto one = {TokenKind::kString, TokenKind::kInteger, TokenKind::kFloat};
  const bool word = tokens_.is(TokenKind::kName) && !tokens_.is_name("else") &&
                    !tokens_.is_name("or") && !tokens_.is_name("and");
  if (tokens_.is_operator("(")) {
    arguments(*asked);
  } else if (word || tokens_.is_operator("[") || tokens_.is_operator("{") ||
             std::ranges::find(one, tokens_.now().kind) != one.end()) {
    if (tokens_.is_name("is")) refuse(tokens_.now().place, "a test of a test is not supported");
    add(*asked, postfix(primary()));
  }
  if (!negated) return asked;
  Made inverse = made(Kind::kNot, place);
  add(*inverse, std::move(asked));
  return inverse;
}

void ExpressionParser::arguments(Expression& call) {
  tokens_.expect_operator("(");
  while (!tokens_.is_operator(")")) {
    if (tokens_.is_operator("*") || tokens_.is_operator("**")) {
      refuse(tokens_.now().place, "arguments behind * are not supported");
    }
    if (tokens_.is(TokenKind::kName) && tokens_.is_behind("=")) {
      std::string name = tokens_.take().text;
      tokens_.take();
      for (const auto& other : call.named) {
        if (other.first == name)
          refuse(tokens_.now().place, "the argument '" + name + "' comes twice");
      }
      ExpressionPtr value = expression();
      deepen(call, *value);
      call.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (!call.named.empty()) {
        refuse(tokens_.now().place, "an argument without a name must not stand behind one with it");
      }
      add(call, expression());
    }
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator(")");
}

}  // namespace weft::chat
