#include "worker/data/chat/interpreter.h"

#include <algorithm>
#include <memory>

namespace weft::chat {

const Value* Scope::find(std::string_view name) const {
  for (const Scope* at = this; at != nullptr; at = at->parent) {
    const auto found = std::ranges::find(at->names, name, &std::pair<std::string, Value>::first);
    if (found != at->names.end()) return &found->second;
  }
  return nullptr;
}

void Scope::set(const std::string& name, Value value) {
  const auto found = std::ranges::find(names, name, &std::pair<std::string, Value>::first);
  if (found == names.end()) {
    names.emplace_back(name, std::move(value));
  } else {
    found->second = std::move(value);
  }
}

Interpreter::Flow Interpreter::execute(const Body& body, Scope& scope, Sink& sink) {
  const Level level(run_);
  for (const Statement& statement : body) {
    run_.place = statement.place;
    run_.spend(kUnitsOfStep);
    const Flow flow = execute_one(statement, scope, sink);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_one(const Statement& statement, Scope& scope, Sink& sink) {
  switch (statement.kind) {
    case Statement::Kind::kText:
      sink.text << statement.text;
      return Flow::kNext;
    case Statement::Kind::kOutput:
      sink.text << to_text(run_, evaluate(*statement.expressions[0], scope));
      return Flow::kNext;
    case Statement::Kind::kIf:
      return choose(statement, scope, sink);
    case Statement::Kind::kFor:
      return loop(statement, scope, sink);
    case Statement::Kind::kSet:
      assign(statement, scope, evaluate(*statement.expressions[0], scope));
      return Flow::kNext;
    case Statement::Kind::kSetBlock:
      return set_block(statement, scope);
    case Statement::Kind::kMacro:
      scope.set(statement.macro->name,
                Value::function({statement.macro->name, Value(), statement.macro.get(), &scope}));
      return Flow::kNext;
    case Statement::Kind::kGeneration:
      generate(statement, scope, sink);
      return Flow::kNext;
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::choose(const Statement& statement, Scope& scope, Sink& sink) {
  for (size_t i = 0; i < statement.expressions.size(); ++i) {
    if (truth(evaluate(*statement.expressions[i], scope))) {
      return execute(statement.bodies[i], scope, sink);
    }
  }
  const bool otherwise = statement.bodies.size() > statement.expressions.size();
  return otherwise ? execute(statement.bodies.back(), scope, sink) : Flow::kNext;
}

void Interpreter::bind(const Statement& loop, Scope& scope, const Value& item) {
  if (loop.names.size() == 1) return scope.set(loop.names[0], item);
  const std::vector<Value> parts = items_of(run_, item);
  if (parts.size() != loop.names.size()) {
    run_.refuse("an item has " + std::to_string(parts.size()) + " parts for " +
                std::to_string(loop.names.size()) + " names");
  }
  for (size_t i = 0; i < parts.size(); ++i) scope.set(loop.names[i], parts[i]);
}

Interpreter::Flow Interpreter::loop(const Statement& statement, Scope& scope, Sink& sink) {
  auto data = std::make_shared<LoopData>();
  data->items = items_of(run_, evaluate(*statement.expressions[0], scope));
  if (const ExpressionPtr& condition = statement.expressions[1]) {
    std::erase_if(data->items, [&](const Value& item) {
      Scope tried{&scope, {}};
      bind(statement, tried, item);
      return !truth(evaluate(*condition, tried));
    });
  }
  bool any = false;
  for (const Value& item : data->items) {
    run_.place = statement.place;
    run_.spend(kUnitsOfStep);
    Scope inner{&scope, {}};
    bind(statement, inner, item);
    inner.set("loop", Value::loop(data));
    any = true;
    if (execute(statement.bodies[0], inner, sink) == Flow::kBreak) break;
    ++data->index0;
  }
  if (!any && statement.bodies.size() > 1) {
    Scope inner{&scope, {}};
    return execute(statement.bodies[1], inner, sink);
  }
  return Flow::kNext;
}

void Interpreter::assign(const Statement& statement, Scope& scope, Value value) {
  if (statement.names.size() == 1) return scope.set(statement.names[0], std::move(value));
  run_.place = statement.place;
  const Value* names = scope.find(statement.names[0]);
  NamespaceData* data = names == nullptr ? nullptr : names->namespace_if();
  if (data == nullptr) run_.refuse("'" + statement.names[0] + "' is no namespace");
  if (statement.names[1].starts_with('_')) {
    run_.refuse("an attribute of a namespace must not begin with _");
  }
  if (!value.is_plain()) {
    run_.refuse("a namespace must not hold a " + std::string(value.kind_name()));
  }
  const auto found =
      std::ranges::find(data->entries, statement.names[1], &std::pair<std::string, Value>::first);
  if (found == data->entries.end()) {
    data->entries.emplace_back(statement.names[1], std::move(value));
  } else {
    found->second = std::move(value);
  }
}

Interpreter::Flow Interpreter::set_block(const Statement& statement, Scope& scope) {
  Scope inner{&scope, {}};
  Sink sink{Text(run_), nullptr};
  const Flow flow = execute(statement.bodies[0], inner, sink);
  if (flow != Flow::kNext) return flow;
  assign(statement, scope, Value::text(sink.text.take()));
  return Flow::kNext;
}

void Interpreter::generate(const Statement& statement, Scope& scope, Sink& sink) {
  if (sink.answers == nullptr) {
    run_.refuse("a generation block within a macro or a set block is not supported");
  }
  const size_t start = sink.text.size();
  Scope inner{&scope, {}};
  execute(statement.bodies[0], inner, sink);
  sink.answers->emplace_back(start, sink.text.size());
}

}  // namespace weft::chat
