#include "worker/data/chat/parser.h"

#include <algorithm>
#include <initializer_list>
#include <memory>

#include "worker/data/chat/expression_parser.h"
#include "worker/data/chat/token_stream.h"

namespace weft::chat {
namespace {

using TokenKind = Token::Kind;
using Kind = Statement::Kind;
using Ends = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokens_of(source)) {}

  Body run() {
    Body body = statements({});
    if (!tokens_.is(TokenKind::kEnd)) tokens_.refuse_expected("the template's end");
    return body;
  }

 private:
  // Up to a block that begins with one of `ends`, whose name is next then; none: to the end.
  Body statements(Ends ends) {
    const Level level(depth_);
    Body body;
    while (!tokens_.is(TokenKind::kEnd)) {
      depth_.place = tokens_.now().place;
      if (tokens_.is(TokenKind::kData)) {
        Statement& text = add(body, Kind::kText, tokens_.now().place);
        text.text = tokens_.take().text;
      } else if (tokens_.is(TokenKind::kVariableBegin)) {
        Statement& output = add(body, Kind::kOutput, tokens_.take().place);
        output.expressions.push_back(expressions_.tuple(true));
        tokens_.expect(TokenKind::kVariableEnd, "}}");
      } else {
        tokens_.expect(TokenKind::kBlockBegin, "{%");
        const bool ended = tokens_.is(TokenKind::kName) &&
                           std::ranges::find(ends, tokens_.now().text) != ends.end();
        if (ended) return body;
        body.push_back(statement());
        tokens_.expect(TokenKind::kBlockEnd, "%}");
      }
    }
    if (ends.size() > 0) tokens_.refuse_expected("{% " + std::string(*(ends.end() - 1)) + " %}");
    return body;
  }

  static Statement& add(Body& body, Kind kind, Place place) {
    Statement& statement = body.emplace_back();
    statement.kind = kind;
    statement.place = place;
    return statement;
  }

  // The body of a block whose head has been read, to behind the name of its end.
  Body block(std::string_view end) {
    tokens_.expect(TokenKind::kBlockEnd, "%}");
    Body body = statements({end});
    tokens_.expect_name(end);
    return body;
  }

  Statement statement() {
    Statement made;
    made.place = tokens_.now().place;
    const std::string name = tokens_.take_name("a statement");
    if (name == "if") {
      read_if(made);
    } else if (name == "for") {
      read_for(made);
    } else if (name == "set") {
      read_set(made);
    } else if (name == "macro") {
      read_macro(made);
    } else if (name == "generation") {
      made.kind = Kind::kGeneration;
      const int loops = std::exchange(loops_, 0);  // break does not leave it
      made.bodies.push_back(block("endgeneration"));
      loops_ = loops;
    } else if (name == "break" || name == "continue") {
      if (loops_ == 0) refuse(made.place, "'" + name + "' stands in no loop");
      made.kind = name == "break" ? Kind::kBreak : Kind::kContinue;
    } else {
      refuse(made.place, "the statement '" + name + "' is not supported");
    }
    return made;
  }

  void read_if(Statement& made) {
    made.kind = Kind::kIf;
    bool more = true;
    while (more) {
      made.expressions.push_back(expressions_.tuple(false));
      tokens_.expect(TokenKind::kBlockEnd, "%}");
      made.bodies.push_back(statements({"elif", "else", "endif"}));
      more = tokens_.skip_name("elif");
    }
    if (tokens_.skip_name("else")) {
      made.bodies.push_back(block("endif"));
    } else {
      tokens_.expect_name("endif");
    }
  }

  void read_for(Statement& made) {
    made.kind = Kind::kFor;
    const bool parenthesized = tokens_.skip_operator("(");
    do {
      made.names.push_back(target());
    } while (tokens_.skip_operator(","));
    if (parenthesized) tokens_.expect_operator(")");
    tokens_.expect_name("in");
    made.expressions.push_back(expressions_.tuple(false));
    made.expressions.push_back(tokens_.skip_name("if") ? expressions_.expression() : nullptr);
    if (tokens_.is_name("recursive")) {
      refuse(tokens_.now().place, "a recursive loop is not supported");
    }
    tokens_.expect(TokenKind::kBlockEnd, "%}");
    ++loops_;
    made.bodies.push_back(statements({"else", "endfor"}));
    --loops_;
    if (tokens_.skip_name("else")) {
      made.bodies.push_back(block("endfor"));
    } else {
      tokens_.expect_name("endfor");
    }
  }

  void read_set(Statement& made) {
    made.names.push_back(target());
    if (tokens_.skip_operator(".")) made.names.push_back(tokens_.take_name("an attribute's name"));
    if (tokens_.skip_operator("=")) {
      made.kind = Kind::kSet;
      made.expressions.push_back(expressions_.tuple(true));
      return;
    }
    if (!tokens_.is(TokenKind::kBlockEnd)) tokens_.refuse_expected("'='");
    made.kind = Kind::kSetBlock;
    made.bodies.push_back(block("endset"));
  }

  void read_macro(Statement& made) {
    made.kind = Kind::kMacro;
    auto macro = std::make_unique<MacroSyntax>();
    macro->name = target();
    tokens_.expect_operator("(");
    while (!tokens_.is_operator(")")) {
      MacroSyntax::Parameter& parameter = macro->parameters.emplace_back();
      parameter.name = target();
      if (tokens_.skip_operator("=")) {
        parameter.otherwise = expressions_.expression();
      } else if (macro->parameters.size() > 1 &&
                 (macro->parameters.end() - 2)->otherwise != nullptr) {
        refuse(tokens_.now().place, "a parameter without a default must not stand behind one");
      }
      if (!tokens_.skip_operator(",")) break;
    }
    tokens_.expect_operator(")");
    const int loops = std::exchange(loops_, 0);
    macro->body = block("endmacro");
    loops_ = loops;
    made.macro = std::move(macro);
  }

  // A name that may be assigned to.
  std::string target() {
    static constexpr std::string_view kFixed[] = {"true",  "false", "none", "True",
                                                  "False", "None",  "loop", "caller"};
    const Place place = tokens_.now().place;
    std::string name = tokens_.take_name("a name");
    if (std::ranges::find(kFixed, name) != std::end(kFixed)) {
      refuse(place, "'" + name + "' must not be assigned to");
    }
    return name;
  }

  TokenStream tokens_;
  Run depth_;
  ExpressionParser expressions_{tokens_, depth_};
  int loops_ = 0;  // around the statement, within its function
};

}  // namespace

Body parse_template(std::string_view source) { return Parser(source).run(); }

}  // namespace weft::chat
