// Runs a template's tree.
//
// Thread safety: one thread. Ownership: borrows the tree, the Run and the names.
// Invariants: 1. each iteration of a loop, macro, set block and generation block has its own scope;
// an if has none. 2. spans of answers are bytes of the whole text, in order.
#pragma once

#include <ctime>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "worker/data/chat/arguments.h"
#include "worker/data/chat/syntax.h"

namespace weft::chat {

struct Scope {
  const Scope* parent = nullptr;
  std::vector<std::pair<std::string, Value>> names;

  const Value* find(std::string_view name) const;
  void set(const std::string& name, Value value);
};

// Where output goes: of the template, of a macro, of a set block.
struct Sink {
  Text text;
  std::vector<std::pair<size_t, size_t>>* answers;  // null but for the template's own
};

class Interpreter {
 public:
  Interpreter(Run& run, std::tm now) : run_(run), now_(now) {}
  void render(const Body& body, Scope& scope, Sink& sink) { execute(body, scope, sink); }

 private:
  enum class Flow { kNext, kBreak, kContinue };

  Flow execute(const Body& body, Scope& scope, Sink& sink);
  Flow execute_one(const Statement& statement, Scope& scope, Sink& sink);
  Flow choose(const Statement& statement, Scope& scope, Sink& sink);
  Flow loop(const Statement& statement, Scope& scope, Sink& sink);
  Flow set_block(const Statement& statement, Scope& scope);
  void generate(const Statement& statement, Scope& scope, Sink& sink);
  void assign(const Statement& statement, Scope& scope, Value value);
  void bind(const Statement& loop, Scope& scope, const Value& item);

  Value evaluate(const Expression& expression, Scope& scope);
  Value evaluate_part(const Expression& expression, size_t part, Scope& scope);
  Value name(const Expression& expression, Scope& scope);
  Value collect(const Expression& expression, Scope& scope);
  Value dict(const Expression& expression, Scope& scope);
  Value logic(const Expression& expression, Scope& scope);
  Value comparison(const Expression& expression, Scope& scope);
  Value concatenation(const Expression& expression, Scope& scope);
  Value conditional(const Expression& expression, Scope& scope);
  Value slice(const Expression& expression, Scope& scope);
  Value call(const Expression& expression, Scope& scope);
  Value call_macro(const FunctionData& function, Arguments arguments);
  Arguments arguments(const Expression& expression, Scope& scope);
  Value tell_time(Arguments arguments);

  Run& run_;
  const std::tm now_;
};

}  // namespace weft::chat
