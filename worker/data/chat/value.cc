#include "worker/data/chat/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "proto/base/status.h"
#include "worker/data/chat/text.h"

namespace weft::chat {
namespace {

void write(Run& run, Text& out, const Value& value);

void write_text(Text& out, const std::string& text) { out << repr(text); }

void write_items(Run& run, Text& out, const ListData& list) {
  out << (list.tuple ? "(" : "[");
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out << ", ";
    write(run, out, list.items[i]);
  }
  if (list.tuple && list.items.size() == 1) out << ",";
  out << (list.tuple ? ")" : "]");
}

void write_entries(Run& run, Text& out, const DictData& dict) {
  out << "{";
  bool first = true;
  for (const auto& [key, value] : dict.entries) {
    if (!first) out << ", ";
    first = false;
    write_text(out, key);
    out << ": ";
    write(run, out, value);
  }
  out << "}";
}

// repr()
void write(Run& run, Text& out, const Value& value) {
  run.spend(1);
  if (const std::string* text = value.text_if()) return write_text(out, *text);
  if (const ListData* list = value.list_if()) return write_items(run, out, *list);
  if (const DictData* dict = value.dict_if()) return write_entries(run, out, *dict);
  if (value.is_undefined()) {
    out << "Undefined";
  } else {
    out << to_text(run, value);
  }
}

int sign(bool less, bool more) { return less ? -1 : more ? 1 : 0; }

bool equal_entries(Run& run, const DictData& a, const DictData& b) {
  if (a.entries.size() != b.entries.size()) return false;
  return std::ranges::all_of(a.entries, [&](const auto& entry) {
    run.spend(static_cast<int64_t>(b.entries.size()));
    const Value* other = b.find(entry.first);
    return other != nullptr && equal(run, entry.second, *other);
  });
}

void check_held(Run& run, const Value& value, int* depth) {
  if (!value.is_plain()) {
    run.refuse(std::string("a ") + value.kind_name() + " in a list or dict is not supported");
  }
  *depth = std::max(*depth, value.depth() + 1);
  if (*depth > kDepthMax) run.refuse("a value is nested too deep");
}

}  // namespace

void refuse(Place place, const std::string& message) {
  throw StatusError(Status(Code::kInvalidArgument,
                           "chat template line " + std::to_string(place.line) + " column " +
                               std::to_string(place.column) + ": " + message));
}

const Value* DictData::find(std::string_view key) const {
  const auto found = std::ranges::find(entries, key, &std::pair<std::string, Value>::first);
  return found == entries.end() ? nullptr : &found->second;
}

Value Value::list(Run& run, std::vector<Value> items, bool tuple) {
  run.spend(kUnitsOfItem * (1 + static_cast<int64_t>(items.size())));
  ListData data{std::move(items), tuple, 1};
  for (const Value& item : data.items) check_held(run, item, &data.depth);
  return Value(std::make_shared<const ListData>(std::move(data)));
}

Value Value::dict(Run& run, std::vector<std::pair<std::string, Value>> entries) {
  run.spend(kUnitsOfItem * (1 + static_cast<int64_t>(entries.size())));
  DictData data{std::move(entries), 1};
  for (const auto& entry : data.entries) check_held(run, entry.second, &data.depth);
  return Value(std::make_shared<const DictData>(std::move(data)));
}

Value Value::iterator(Run& run, std::vector<Value> items) {
  run.spend(kUnitsOfItem * (1 + static_cast<int64_t>(items.size())));
  return Value(std::make_shared<IteratorData>(IteratorData{std::move(items), 0}));
}

Value Value::function(FunctionData data) {
  return Value(std::make_shared<const FunctionData>(std::move(data)));
}

bool Value::is_plain() const {
  return namespace_if() == nullptr && loop_if() == nullptr && function_if() == nullptr &&
         iterator_if() == nullptr;
}

int64_t Value::as_integer() const {
  return is_bool() ? int64_t{as_bool()} : std::get<int64_t>(data_);
}

double Value::as_double() const {
  return is_float() ? std::get<double>(data_) : static_cast<double>(as_integer());
}

int Value::depth() const {
  if (const ListData* list = list_if()) return list->depth;
  if (const DictData* dict = dict_if()) return dict->depth;
  return 0;
}

const char* Value::kind_name() const {
  static constexpr const char* kNames[] = {"Undefined", "NoneType",  "bool",        "int",
                                           "float",     "str",       "list",        "dict",
                                           "generator", "namespace", "LoopContext", "function"};
  if (list_if() != nullptr && list_if()->tuple) return "tuple";
  return kNames[data_.index()];
}

bool truth(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_number()) return value.as_double() != 0;
  if (const std::string* text = value.text_if()) return !text->empty();
  if (const ListData* list = value.list_if()) return !list->items.empty();
  if (const DictData* dict = value.dict_if()) return !dict->entries.empty();
  if (const LoopData* loop = value.loop_if()) return !loop->items.empty();
  return true;
}

bool equal(Run& run, const Value& a, const Value& b) {
  run.spend(1);
  if (a.is_number() && b.is_number()) {
    if (!a.is_float() && !b.is_float()) return a.as_integer() == b.as_integer();
    return a.as_double() == b.as_double();
  }
  if (a.is_text() && b.is_text()) {
    run.spend(static_cast<int64_t>(std::min(a.text_if()->size(), b.text_if()->size()) / 16));
    return *a.text_if() == *b.text_if();
  }
  if (a.is_sequence() && b.is_sequence()) {
    const ListData &x = *a.list_if(), &y = *b.list_if();
    return x.tuple == y.tuple &&
           std::ranges::equal(x.items, y.items, [&](const Value& one, const Value& other) {
             return equal(run, one, other);
           });
  }
  if (a.is_dict() && b.is_dict()) return equal_entries(run, *a.dict_if(), *b.dict_if());
  if (!a.is_plain() && !b.is_plain()) {
    return a.namespace_if() == b.namespace_if() && a.loop_if() == b.loop_if() &&
           a.function_if() == b.function_if() && a.iterator_if() == b.iterator_if();
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

int compare(Run& run, const Value& a, const Value& b) {
  run.spend(1);
  if (a.is_number() && b.is_number()) {
    if (!a.is_float() && !b.is_float()) {
      return sign(a.as_integer() < b.as_integer(), a.as_integer() > b.as_integer());
    }
    return sign(a.as_double() < b.as_double(), a.as_double() > b.as_double());
  }
  if (a.is_text() && b.is_text()) {
    const int order = a.text_if()->compare(*b.text_if());
    return sign(order<0, order> 0);
  }
  if (a.is_sequence() && b.is_sequence() && a.list_if()->tuple == b.list_if()->tuple) {
    const auto &x = a.list_if()->items, &y = b.list_if()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(run, x[i], y[i])) return compare(run, x[i], y[i]);
    }
    return sign(x.size() < y.size(), x.size() > y.size());
  }
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) run.refuse(value->what_is_undefined());
  }
  run.refuse(std::string("a ") + a.kind_name() + " and a " + b.kind_name() + " have no order");
}

std::string to_text(Run& run, const Value& value) {
  if (const std::string* text = value.text_if()) return *text;
  if (value.is_undefined()) return "";
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.as_bool() ? "True" : "False";
  if (value.is_integer()) return std::to_string(value.as_integer());
  if (value.is_float()) return float_text(value.as_double());
  if (!value.is_plain()) {
    run.refuse(std::string("a ") + value.kind_name() + " as text is not supported");
  }
  Text out(run);
  write(run, out, value);
  return out.take();
}

std::vector<Value> items_of(Run& run, const Value& value) {
  std::vector<Value> items;
  if (const ListData* list = value.list_if()) {
    items = list->items;
  } else if (IteratorData* iterator = value.iterator_if()) {
    items.assign(iterator->items.begin() + static_cast<int64_t>(iterator->next),
                 iterator->items.end());
    iterator->next = iterator->items.size();
  } else if (const DictData* dict = value.dict_if()) {
    for (const auto& entry : dict->entries) items.push_back(Value::text(entry.first));
  } else if (const std::string* text = value.text_if()) {
    run.spend(kUnitsOfItem * static_cast<int64_t>(text->size()));
    for (const std::string_view one : characters(*text)) {
      items.push_back(Value::text(std::string(one)));
    }
  } else if (!value.is_undefined()) {
    run.refuse(std::string("a ") + value.kind_name() + " is not iterable");
  }
  run.spend(kUnitsOfItem * static_cast<int64_t>(items.size()));
  return items;
}

bool contains(Run& run, const Value& all, const Value& one) {
  if (const std::string* text = all.text_if()) {
    if (!one.is_text()) {
      run.refuse(std::string("a str contains no ") + one.kind_name() + ", only a str");
    }
    run.spend(static_cast<int64_t>(text->size()));
    return text->find(*one.text_if()) != std::string::npos;
  }
  if (const DictData* dict = all.dict_if()) {
    run.spend(static_cast<int64_t>(dict->entries.size()));
    return one.is_text() && dict->find(*one.text_if()) != nullptr;
  }
  return std::ranges::any_of(items_of(run, all),
                             [&](const Value& item) { return equal(run, item, one); });
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string shortest(buffer, end.ptr);  // "-1.25e+02"
  const int exponent = std::stoi(shortest.substr(shortest.find('e') + 1));
  if (exponent < -4 || exponent >= 16) return shortest;
  const auto plain = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  const std::string text(buffer, plain.ptr);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

}  // namespace weft::chat
