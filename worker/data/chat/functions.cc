#include "worker/data/chat/functions.h"

#include <algorithm>
#include <array>
#include <map>

#include "worker/data/chat/cases.h"
#include "worker/data/chat/text.h"

namespace weft::chat {
namespace {

constexpr int64_t kRangeMax = 100'000;  // jinja2.sandbox.MAX_RANGE

using Names = std::initializer_list<std::string_view>;
using Function = Value (*)(Run&, const Value& self, Arguments&);

bool has(Names names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

Value raise_exception(Run& run, const Value& /*self*/, Arguments& given) {
  const Value message = given.need(run, "message");
  run.refuse(to_text(run, message));
}

Value make_namespace(Run& run, const Value& /*self*/, Arguments& given) {
  if (!given.positional.empty()) run.refuse("namespace() takes named arguments only");
  Value made = Value::names();
  for (auto& [name, value] : given.named) {
    if (!value.is_plain())
      run.refuse("a namespace must not hold a " + std::string(value.kind_name()));
    made.namespace_if()->entries.emplace_back(name, std::move(value));
  }
  given.named.clear();
  return made;
}

Value make_dict(Run& run, const Value& /*self*/, Arguments& given) {
  if (!given.positional.empty()) run.refuse("dict() takes named arguments only");
  return Value::dict(run, std::exchange(given.named, {}));
}

Value make_range(Run& run, const Value& /*self*/, Arguments& given) {
  int64_t start = 0;
  std::optional<int64_t> stop = given.take_integer(run, "");
  if (!stop) run.refuse("range() needs a number");
  const std::optional<int64_t> second = given.take_integer(run, "");
  if (second) start = std::exchange(*stop, *second);
  const int64_t step = given.take_integer(run, "").value_or(1);
  if (step == 0) run.refuse("range() with a step of 0");
  const auto size = [&]() -> __int128 {
    const __int128 span = static_cast<__int128>(*stop) - start;
    if ((span > 0) != (step > 0) || span == 0) return 0;
    return (span + step - (step > 0 ? 1 : -1)) / step;
  }();
  if (size > kRangeMax) run.refuse("range() of more than 100000 numbers");
  std::vector<Value> items;
  for (int64_t i = 0; i < static_cast<int64_t>(size); ++i) {
    items.push_back(Value::integer(start + i * step));
  }
  return Value::list(run, std::move(items));
}

Value cycle(Run& run, const Value& self, Arguments& given) {
  const std::vector<Value> all = std::exchange(given.positional, {});
  if (all.empty()) run.refuse("loop.cycle() needs arguments");
  return all[static_cast<size_t>(self.loop_if()->index0) % all.size()];
}

Value changed(Run& run, const Value& self, Arguments& given) {
  std::vector<Value> now = std::exchange(given.positional, {});
  for (const Value& value : now) {  // no loop may hold itself
    if (!value.is_plain()) {
      run.refuse(std::string("loop.changed() of a ") + value.kind_name() + " is not supported");
    }
  }
  std::vector<Value>& before = self.loop_if()->changed;
  const bool first = !self.loop_if()->asked;
  const bool same = !first && std::ranges::equal(now, before, [&](const Value& a, const Value& b) {
    return equal(run, a, b);
  });
  self.loop_if()->asked = true;
  before = std::move(now);
  return Value::boolean(!same);
}

Value strip(Run& run, const Value& self, Arguments& given, Side side) {
  const Value set = given.take_or(run, "chars", Value());
  if (!set.is_none() && !set.is_text()) run.refuse("what is stripped must be a str");
  return Value::text(std::string(
      set.is_none() ? stripped(*self.text_if(), side)
                    : stripped(*self.text_if(), side, std::string_view(*set.text_if()))));
}

Value texts(Run& run, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  for (const std::string_view part : parts) items.push_back(Value::text(std::string(part)));
  return Value::list(run, std::move(items));
}

Value split_method(Run& run, const Value& self, Arguments& given, bool from_right) {
  const Value separator = given.take_or(run, "sep", Value());
  const int64_t times = given.take_integer(run, "maxsplit").value_or(-1);
  if (!separator.is_none() && (!separator.is_text() || separator.text_if()->empty())) {
    run.refuse("a separator must be a str that is not empty");
  }
  run.spend(kUnitsOfItem * static_cast<int64_t>(self.text_if()->size()));
  return texts(run,
               split(*self.text_if(),
                     separator.is_none() ? std::nullopt
                                         : std::optional<std::string_view>(*separator.text_if()),
                     times, from_right));
}

Value split_lines_method(Run& run, const Value& self, Arguments& /*given*/) {
  run.spend(kUnitsOfItem * static_cast<int64_t>(self.text_if()->size()));
  return texts(run, split_lines(*self.text_if()));
}

// startswith and endswith take one or a tuple of those.
Value borders(Run& run, const Value& self, Arguments& given, bool start) {
  const Value asked = given.need(run, "");
  std::vector<Value> any = {asked};
  if (asked.is_sequence() && asked.list_if()->tuple) any = asked.list_if()->items;
  for (const Value& one : any) {
    if (!one.is_text()) run.refuse("the start or end of a str must be a str");
    const std::string &text = *self.text_if(), &part = *one.text_if();
    if (start ? text.starts_with(part) : text.ends_with(part)) return Value::boolean(true);
  }
  return Value::boolean(false);
}

Value without(Run& run, const Value& self, Arguments& given, bool start) {
  std::string_view text = *self.text_if();
  const std::string part = given.need_text(run, "");
  if (start ? text.starts_with(part) : text.ends_with(part)) {
    start ? text.remove_prefix(part.size()) : text.remove_suffix(part.size());
  }
  return Value::text(std::string(text));
}

Value replace(Run& run, const Value& self, Arguments& given) {
  const std::string old = given.need_text(run, ""), with = given.need_text(run, "");
  const int64_t times = given.take_integer(run, "").value_or(-1);
  return Value::text(replaced(run, *self.text_if(), old, with, times));
}

Value find(Run& run, const Value& self, Arguments& given, bool from_right) {
  const std::string part = given.need_text(run, "");
  const std::string& text = *self.text_if();
  run.spend(static_cast<int64_t>(text.size()));
  const size_t at = from_right ? text.rfind(part) : text.find(part);
  if (at == std::string::npos) return Value::integer(-1);
  return Value::integer(character_count(std::string_view(text).substr(0, at)));
}

Value count(Run& run, const Value& self, Arguments& given) {
  const std::string part = given.need_text(run, "");
  const std::string& text = *self.text_if();
  run.spend(static_cast<int64_t>(text.size()));
  if (part.empty()) return Value::integer(character_count(text) + 1);
  int64_t times = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++times;
  return Value::integer(times);
}

Value join(Run& run, const Value& self, Arguments& given) {
  Text out(run);
  bool first = true;
  for (const Value& item : items_of(run, given.need(run, ""))) {
    if (!item.is_text())
      run.refuse("only texts can be joined, not a " + std::string(item.kind_name()));
    if (!std::exchange(first, false)) out << *self.text_if();
    out << *item.text_if();
  }
  return Value::text(out.take());
}

Value is_digit(Run& run, const Value& self, Arguments& /*given*/) {
  const std::string& text = *self.text_if();
  need_ascii(run, text, "isdigit");
  return Value::boolean(!text.empty() &&
                        std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; }));
}

Value get(Run& run, const Value& self, Arguments& given) {
  const Value key = given.need(run, "");
  const Value otherwise = given.take_or(run, "", Value());
  const Value* found = key.is_text() ? self.dict_if()->find(*key.text_if()) : nullptr;
  run.spend(static_cast<int64_t>(self.dict_if()->entries.size()));
  return found != nullptr ? *found : otherwise;
}

Value entries(Run& run, const Value& self, bool keys, bool values) {
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict_if()->entries) {
    if (keys && values) {
      items.push_back(Value::list(run, {Value::text(key), value}, true));
    } else {
      items.push_back(keys ? Value::text(key) : value);
    }
  }
  return Value::list(run, std::move(items));
}

template <std::string (*kCase)(std::string)>
Value cased(Run& run, const Value& self, Arguments& /*given*/) {
  need_ascii(run, *self.text_if(), "the case");
  return Value::text(kCase(*self.text_if()));
}

const std::map<std::string_view, Function>& text_methods() {
  static const std::map<std::string_view, Function> kMethods = {
      {"strip", [](Run& r, const Value& s, Arguments& a) { return strip(r, s, a, Side::kBoth); }},
      {"lstrip", [](Run& r, const Value& s, Arguments& a) { return strip(r, s, a, Side::kLeft); }},
      {"rstrip", [](Run& r, const Value& s, Arguments& a) { return strip(r, s, a, Side::kRight); }},
      {"split", [](Run& r, const Value& s, Arguments& a) { return split_method(r, s, a, false); }},
      {"rsplit", [](Run& r, const Value& s, Arguments& a) { return split_method(r, s, a, true); }},
      {"splitlines", split_lines_method},
      {"startswith", [](Run& r, const Value& s, Arguments& a) { return borders(r, s, a, true); }},
      {"endswith", [](Run& r, const Value& s, Arguments& a) { return borders(r, s, a, false); }},
      {"removeprefix", [](Run& r, const Value& s, Arguments& a) { return without(r, s, a, true); }},
      {"removesuffix",
       [](Run& r, const Value& s, Arguments& a) { return without(r, s, a, false); }},
      {"find", [](Run& r, const Value& s, Arguments& a) { return find(r, s, a, false); }},
      {"rfind", [](Run& r, const Value& s, Arguments& a) { return find(r, s, a, true); }},
      {"upper", cased<upper>},
      {"lower", cased<lower>},
      {"capitalize", cased<capitalized>},
      {"title", cased<title_method>},
      {"replace", replace},
      {"count", count},
      {"join", join},
      {"isdigit", is_digit}};
  return kMethods;
}

const std::map<std::string_view, Function>& dict_methods() {
  static const std::map<std::string_view, Function> kMethods = {
      {"get", get},
      {"items", [](Run& r, const Value& s, Arguments&) { return entries(r, s, true, true); }},
      {"keys", [](Run& r, const Value& s, Arguments&) { return entries(r, s, true, false); }},
      {"values", [](Run& r, const Value& s, Arguments&) { return entries(r, s, false, true); }}};
  return kMethods;
}

const std::map<std::string_view, Function>& functions() {
  static const std::map<std::string_view, Function> kFunctions = {
      {"raise_exception", raise_exception},
      {"namespace", make_namespace},
      {"dict", make_dict},
      {"range", make_range}};
  return kFunctions;
}

Function function_of(const FunctionData& function) {
  if (function.self.is_text()) return text_methods().at(function.name);
  if (function.self.is_dict()) return dict_methods().at(function.name);
  if (function.self.loop_if() != nullptr) return function.name == "cycle" ? cycle : changed;
  return functions().at(function.name);
}

}  // namespace

bool is_function(std::string_view name) { return functions().contains(name); }

Method find_method(const Value& of, std::string_view name) {
  if (of.is_text()) {
    if (text_methods().contains(name)) return Method::kSupported;
    const bool other =
        has({"casefold", "center",    "encode",      "expandtabs", "format",    "format_map",
             "index",    "isalnum",   "isalpha",     "isascii",    "isdecimal", "isidentifier",
             "islower",  "isnumeric", "isprintable", "isspace",    "istitle",   "isupper",
             "ljust",    "maketrans", "partition",   "rindex",     "rjust",     "rpartition",
             "swapcase", "translate", "zfill"},
            name);
    return other ? Method::kUnsupported : Method::kNone;
  }
  if (of.is_dict()) {
    if (dict_methods().contains(name)) return Method::kSupported;
    if (has({"clear", "pop", "popitem", "setdefault", "update"}, name)) return Method::kChanges;
    return has({"copy", "fromkeys"}, name) ? Method::kUnsupported : Method::kNone;
  }
  if (!of.is_sequence()) return Method::kNone;
  if (has({"count", "index"}, name)) return Method::kUnsupported;
  if (of.list_if()->tuple) return Method::kNone;
  if (name == "copy") return Method::kUnsupported;
  const bool changes =
      has({"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"}, name);
  return changes ? Method::kChanges : Method::kNone;
}

Value call(Run& run, const FunctionData& function, Arguments arguments) {
  const Value result = function_of(function)(run, function.self, arguments);
  arguments.done(run);
  return result;
}

}  // namespace weft::chat
