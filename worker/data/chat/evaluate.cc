// Expressions.
#include <algorithm>
#include <array>
#include <ctime>

#include "worker/data/chat/access.h"
#include "worker/data/chat/filters.h"
#include "worker/data/chat/functions.h"
#include "worker/data/chat/interpreter.h"
#include "worker/data/chat/operators.h"
#include "worker/data/chat/tests.h"

namespace weft::chat {

using Kind = Expression::Kind;

Value Interpreter::evaluate_part(const Expression& expression, size_t part, Scope& scope) {
  Value value = evaluate(*expression.parts[part], scope);
  run_.place = expression.place;
  return value;
}

Value Interpreter::evaluate(const Expression& expression, Scope& scope) {
  const Level level(run_);
  run_.place = expression.place;
  run_.spend(kUnitsOfStep);
  const auto part = [&](size_t i) { return evaluate_part(expression, i, scope); };
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.constant;
    case Kind::kName:
      return name(expression, scope);
    case Kind::kList:
    case Kind::kTuple:
      return collect(expression, scope);
    case Kind::kDict:
      return dict(expression, scope);
    case Kind::kNegative:
      return negative(run_, part(0));
    case Kind::kPositive: {
      const Value value = part(0);
      if (!value.is_number()) run_.refuse(std::string("+ of a ") + value.kind_name());
      return value.is_bool() ? Value::integer(value.as_integer()) : value;
    }
    case Kind::kNot:
      return Value::boolean(!truth(part(0)));
    case Kind::kBinary: {
      const Value left = part(0);
      return calculate(run_, expression.name, left, part(1));
    }
    case Kind::kConcat:
      return concatenation(expression, scope);
    case Kind::kCompare:
      return comparison(expression, scope);
    case Kind::kAnd:
    case Kind::kOr:
      return logic(expression, scope);
    case Kind::kConditional:
      return conditional(expression, scope);
    case Kind::kAttribute:
      return attribute_of(run_, part(0), expression.name);
    case Kind::kItem: {
      const Value of = part(0);
      return item_of(run_, of, part(1));
    }
    case Kind::kSlice:
      return slice(expression, scope);
    case Kind::kCall:
      return call(expression, scope);
    case Kind::kFilter: {
      const Value value = part(0);
      return filtered(run_, expression.name, value, arguments(expression, scope));
    }
    case Kind::kTest: {
      const Value value = part(0);
      return Value::boolean(passes(run_, expression.name, value, arguments(expression, scope)));
    }
  }
  return Value();
}

Value Interpreter::name(const Expression& expression, Scope& scope) {
  if (const Value* found = scope.find(expression.name)) return *found;
  if (is_function(expression.name) || expression.name == "strftime_now") {
    return Value::function({expression.name, Value()});
  }
  return Value::undefined("'" + expression.name + "' is undefined");
}

Value Interpreter::collect(const Expression& expression, Scope& scope) {
  std::vector<Value> items;
  for (size_t i = 0; i < expression.parts.size(); ++i) {
    items.push_back(evaluate_part(expression, i, scope));
  }
  return Value::list(run_, std::move(items), expression.kind == Kind::kTuple);
}

Value Interpreter::dict(const Expression& expression, Scope& scope) {
  std::vector<std::pair<std::string, Value>> entries;
  for (size_t i = 0; i < expression.parts.size(); i += 2) {
    const Value key = evaluate_part(expression, i, scope);
    if (!key.is_text()) {
      run_.refuse(std::string("a dict's key must be a str; a ") + key.kind_name() +
                  " is not supported");
    }
    Value value = evaluate_part(expression, i + 1, scope);
    const auto same = [&](const auto& entry) { return entry.first == *key.text_if(); };
    const auto found = std::find_if(entries.begin(), entries.end(), same);
    if (found == entries.end()) {
      entries.emplace_back(*key.text_if(), std::move(value));
    } else {
      found->second = std::move(value);
    }
  }
  return Value::dict(run_, std::move(entries));
}

Value Interpreter::logic(const Expression& expression, Scope& scope) {
  Value value;
  for (size_t i = 0; i < expression.parts.size(); ++i) {
    value = evaluate_part(expression, i, scope);
    if (truth(value) == (expression.kind == Kind::kOr)) break;
  }
  return value;
}

Value Interpreter::comparison(const Expression& expression, Scope& scope) {
  Value left = evaluate_part(expression, 0, scope);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate_part(expression, i + 1, scope);
    if (!compares(run_, expression.operators[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::concatenation(const Expression& expression, Scope& scope) {
  Text out(run_);
  for (size_t i = 0; i < expression.parts.size(); ++i) {
    out << to_text(run_, evaluate_part(expression, i, scope));
  }
  return Value::text(out.take());
}

Value Interpreter::conditional(const Expression& expression, Scope& scope) {
  if (truth(evaluate_part(expression, 0, scope))) return evaluate_part(expression, 1, scope);
  if (expression.parts.size() > 2) return evaluate_part(expression, 2, scope);
  return Value::undefined(
      "the inline if-expression evaluated to false and no else section was "
      "defined.");
}

Value Interpreter::slice(const Expression& expression, Scope& scope) {
  const Value of = evaluate_part(expression, 0, scope);
  std::array<std::optional<int64_t>, 3> bounds;
  for (size_t i = 0; i < bounds.size(); ++i) {
    if (!expression.parts[i + 1]) continue;
    const Value bound = evaluate_part(expression, i + 1, scope);
    if (bound.is_none()) continue;
    if (!bound.is_integer() && !bound.is_bool()) {
      run_.refuse(std::string("a slice's bound must be an int, not a ") + bound.kind_name());
    }
    bounds.at(i) = bound.as_integer();
  }
  return slice_of(run_, of, bounds[0], bounds[1], bounds[2]);
}

Arguments Interpreter::arguments(const Expression& expression, Scope& scope) {
  Arguments all;
  for (size_t i = 1; i < expression.parts.size(); ++i) {
    all.positional.push_back(evaluate_part(expression, i, scope));
  }
  for (const auto& [name, value] : expression.named) {
    all.named.emplace_back(name, evaluate(*value, scope));
  }
  run_.place = expression.place;
  return all;
}

Value Interpreter::call(const Expression& expression, Scope& scope) {
  const Value what = evaluate_part(expression, 0, scope);
  if (what.is_undefined()) run_.refuse(what.what_is_undefined());
  const FunctionData* function = what.function_if();
  if (function == nullptr) {
    run_.refuse(std::string("a call of a ") + what.kind_name() + " is not supported");
  }
  Arguments given = arguments(expression, scope);
  if (function->macro != nullptr) return call_macro(*function, std::move(given));
  if (function->name == "strftime_now" && function->self.is_none()) {
    return tell_time(std::move(given));
  }
  return chat::call(run_, *function, std::move(given));
}

Value Interpreter::call_macro(const FunctionData& function, Arguments given) {
  const Place place = run_.place;
  Scope inner{function.scope, {}};
  for (const MacroSyntax::Parameter& parameter : function.macro->parameters) {
    std::optional<Value> value = given.take(run_, parameter.name);
    if (!value && parameter.otherwise) value = evaluate(*parameter.otherwise, inner);
    inner.set(parameter.name,
              value ? std::move(*value)
                    : Value::undefined("parameter '" + parameter.name + "' was not provided"));
    run_.place = place;
  }
  given.done(run_);
  Sink sink{Text(run_), nullptr};
  execute(function.macro->body, inner, sink);
  return Value::text(sink.text.take());
}

Value Interpreter::tell_time(Arguments given) {
  const std::string format = given.need_text(run_, "format");
  given.done(run_);
  if (format.empty()) return Value::text("");
  std::array<char, 1024> text{};
  const size_t size = std::strftime(text.data(), text.size(), format.c_str(), &now_);
  if (size == 0) run_.refuse("the time's format is too long");
  return Value::text(std::string(text.data(), size));
}

}  // namespace weft::chat
