#include "worker/data/chat/operators.h"

#include <algorithm>
#include <cmath>

namespace weft::chat {
namespace {

[[noreturn]] void unsuited(Run& run, const std::string& name, const Value& a, const Value& b) {
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) run.refuse(value->what_is_undefined());
  }
  run.refuse(name + " of a " + a.kind_name() + " and a " + b.kind_name() + " is not supported");
}

Value of_integers(Run& run, const std::string& name, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (name == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (name == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (name == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (b == 0) {
    run.refuse("division by zero");
  } else if (b == -1) {
    overflow = name == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
  } else {
    const int64_t rest = a % b;
    const bool below = rest != 0 && (rest < 0) != (b < 0);
    result = name == "//" ? a / b - (below ? 1 : 0) : rest + (below ? b : 0);
  }
  if (overflow) run.refuse("an int is beyond 64 bits");
  return Value::integer(result);
}

Value of_floats(Run& run, const std::string& name, double a, double b) {
  if (name == "+") return Value::number(a + b);
  if (name == "-") return Value::number(a - b);
  if (name == "*") return Value::number(a * b);
  if (b == 0) run.refuse("division by zero");
  if (name == "/") return Value::number(a / b);
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  return Value::number(name == "//" ? std::round((a - rest) / b) : rest);
}

Value added(Run& run, const Value& a, const Value& b) {
  if (a.is_text() && b.is_text()) {
    Text out(run);
    out << *a.text_if() << *b.text_if();
    return Value::text(out.take());
  }
  if (!a.is_sequence() || !b.is_sequence() || a.list_if()->tuple != b.list_if()->tuple) {
    unsuited(run, "+", a, b);
  }
  std::vector<Value> items = a.list_if()->items;
  items.insert(items.end(), b.list_if()->items.begin(), b.list_if()->items.end());
  return Value::list(run, std::move(items), a.list_if()->tuple);
}

Value repeated(Run& run, const Value& a, const Value& b) {
  const Value &all = a.is_number() ? b : a, &times = a.is_number() ? a : b;
  if (times.is_float() || !times.is_number()) unsuited(run, "*", a, b);
  const std::string* text = all.text_if();
  const ListData* list = all.list_if();
  if (text == nullptr && list == nullptr) unsuited(run, "*", a, b);
  const auto size = static_cast<int64_t>(text != nullptr ? text->size() : list->items.size());
  const int64_t count = size == 0 ? 0 : std::max<int64_t>(0, times.as_integer());
  const int64_t each = size * (text != nullptr ? 1 : kUnitsOfItem);
  int64_t units = 0;
  if (__builtin_mul_overflow(count, each, &units)) units = kUnitsMax + 1;
  run.spend(units);  // before any of it is made
  if (text != nullptr) {
    std::string whole;
    for (int64_t i = 0; i < count; ++i) whole += *text;
    return Value::text(std::move(whole));
  }
  std::vector<Value> items;
  for (int64_t i = 0; i < count; ++i) {
    items.insert(items.end(), list->items.begin(), list->items.end());
  }
  return Value::list(run, std::move(items), list->tuple);
}

}  // namespace

Value calculate(Run& run, const std::string& name, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    const bool whole = !a.is_float() && !b.is_float() && name != "/";
    return whole ? of_integers(run, name, a.as_integer(), b.as_integer())
                 : of_floats(run, name, a.as_double(), b.as_double());
  }
  if (name == "+") return added(run, a, b);
  if (name == "*") return repeated(run, a, b);
  unsuited(run, name, a, b);
}

Value negative(Run& run, const Value& value) {
  if (value.is_float()) return Value::number(-value.as_double());
  if (value.is_undefined()) run.refuse(value.what_is_undefined());
  if (!value.is_number()) run.refuse(std::string("- of a ") + value.kind_name());
  return of_integers(run, "-", 0, value.as_integer());
}

bool compares(Run& run, const std::string& name, const Value& a, const Value& b) {
  if (name == "==") return equal(run, a, b);
  if (name == "!=") return !equal(run, a, b);
  if (name == "in") return contains(run, b, a);
  if (name == "not in") return !contains(run, b, a);
  const bool nan =
      (a.is_float() && std::isnan(a.as_double())) || (b.is_float() && std::isnan(b.as_double()));
  const int order = compare(run, a, b);
  if (nan) return false;
  return name == "<" ? order < 0 : name == "<=" ? order <= 0 : name == ">" ? order > 0 : order >= 0;
}

}  // namespace weft::chat
