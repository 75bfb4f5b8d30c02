#include "worker/data/chat/tests.h"

#include <algorithm>
#include <map>

#include "worker/data/chat/cases.h"

namespace weft::chat {
namespace {

using Test = bool (*)(Run&, const Value&, Arguments&);

int64_t remainder(Run& run, const Value& value, int64_t by) {
  if (!value.is_integer() && !value.is_bool()) run.refuse("the test needs an int");
  if (by == 0) run.refuse("division by zero");
  if (by == -1) return 0;
  const int64_t rest = value.as_integer() % by;
  return rest != 0 && (rest < 0) != (by < 0) ? rest + by : rest;
}

bool sequence(Run& /*run*/, const Value& v, Arguments& /*given*/) {
  return v.is_text() || v.is_sequence() || v.is_dict() || v.is_undefined();
}

bool iterable(Run& run, const Value& v, Arguments& given) {
  return sequence(run, v, given) || v.iterator_if() != nullptr || v.loop_if() != nullptr;
}

bool same_as(Run& run, const Value& v, Arguments& given) {
  const Value other = given.need(run, "other");
  for (const Value* value : {&v, &other}) {
    if (!value->is_none() && !value->is_bool()) {
      run.refuse("sameas is supported for none, true and false only");
    }
  }
  return v.is_none() == other.is_none() && (v.is_none() || v.as_bool() == other.as_bool());
}

// islower() and isupper(): there are letters, and all are so.
template <bool kLower>
bool in_case(Run& run, const Value& v, Arguments& /*given*/) {
  const std::string text = to_text(run, v);
  need_ascii(run, text, "the case");
  return text == (kLower ? lower(text) : upper(text)) &&
         text != (kLower ? upper(text) : lower(text));
}

bool eq(Run& run, const Value& v, Arguments& given) { return equal(run, v, given.need(run, "")); }
bool ne(Run& run, const Value& v, Arguments& given) { return !equal(run, v, given.need(run, "")); }
bool lt(Run& run, const Value& v, Arguments& given) {
  return compare(run, v, given.need(run, "")) < 0;
}
bool le(Run& run, const Value& v, Arguments& given) {
  return compare(run, v, given.need(run, "")) <= 0;
}
bool gt(Run& run, const Value& v, Arguments& given) {
  return compare(run, v, given.need(run, "")) > 0;
}
bool ge(Run& run, const Value& v, Arguments& given) {
  return compare(run, v, given.need(run, "")) >= 0;
}

const std::map<std::string_view, Test>& tests() {
  static const std::map<std::string_view, Test> kTests = {
      {"defined", [](Run&, const Value& v, Arguments&) { return !v.is_undefined(); }},
      {"undefined", [](Run&, const Value& v, Arguments&) { return v.is_undefined(); }},
      {"none", [](Run&, const Value& v, Arguments&) { return v.is_none(); }},
      {"boolean", [](Run&, const Value& v, Arguments&) { return v.is_bool(); }},
      {"true", [](Run&, const Value& v, Arguments&) { return v.is_bool() && v.as_bool(); }},
      {"false", [](Run&, const Value& v, Arguments&) { return v.is_bool() && !v.as_bool(); }},
      {"integer", [](Run&, const Value& v, Arguments&) { return v.is_integer(); }},
      {"float", [](Run&, const Value& v, Arguments&) { return v.is_float(); }},
      {"number", [](Run&, const Value& v, Arguments&) { return v.is_number(); }},
      {"string", [](Run&, const Value& v, Arguments&) { return v.is_text(); }},
      {"mapping", [](Run&, const Value& v, Arguments&) { return v.is_dict(); }},
      {"callable", [](Run&, const Value& v, Arguments&) { return v.function_if() != nullptr; }},
      {"sequence", sequence},
      {"iterable", iterable},
      {"sameas", same_as},
      {"lower", in_case<true>},
      {"upper", in_case<false>},
      {"odd", [](Run& r, const Value& v, Arguments&) { return remainder(r, v, 2) == 1; }},
      {"even", [](Run& r, const Value& v, Arguments&) { return remainder(r, v, 2) == 0; }},
      {"divisibleby",
       [](Run& r, const Value& v, Arguments& a) {
         return remainder(r, v, a.take_integer(r, "num").value_or(0)) == 0;
       }},
      {"in", [](Run& r, const Value& v, Arguments& a) { return contains(r, a.need(r, "seq"), v); }},
      {"eq", eq},
      {"==", eq},
      {"equalto", eq},
      {"ne", ne},
      {"!=", ne},
      {"lt", lt},
      {"<", lt},
      {"lessthan", lt},
      {"le", le},
      {"<=", le},
      {"gt", gt},
      {">", gt},
      {"greaterthan", gt},
      {"ge", ge},
      {">=", ge}};
  return kTests;
}

}  // namespace

bool is_test(std::string_view name) { return tests().contains(name); }

bool passes(Run& run, std::string_view name, const Value& value, Arguments arguments) {
  const auto found = tests().find(name);
  if (found == tests().end()) run.refuse("the test '" + std::string(name) + "' is not supported");
  const bool passed = found->second(run, value, arguments);
  arguments.done(run);
  return passed;
}

}  // namespace weft::chat
