// The values of a chat template's expressions, as Python has them: what they are, how they compare
// and how they are written.
//
// Thread safety: one thread. Ownership: values share what they hold, which does not change but for
// namespaces and iterators.
// Invariants: 1. strings are valid UTF-8. 2. a dict's keys are unique strings in the order in which
// they came. 3. lists and dicts hold no namespace, loop or function, so values form no cycle and a
// macro does not outlive the scope that it was defined in; they are nested at most kDepthMax deep.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "worker/data/chat/run.h"

namespace weft::chat {

class Value;
struct MacroSyntax;
struct Scope;

struct Undefined {
  std::string what;  // "'tools' is undefined"
};
struct None {};

struct ListData {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 1;
};

struct DictData {
  std::vector<std::pair<std::string, Value>> entries;
  int depth = 1;
  const Value* find(std::string_view key) const;
};

// What a generator of Python gives: each item once.
struct IteratorData {
  std::vector<Value> items;
  size_t next = 0;
};

struct NamespaceData {
  std::vector<std::pair<std::string, Value>> entries;
};

// The `loop` of a for.
struct LoopData {
  std::vector<Value> items;
  int64_t index0 = 0;
  bool asked = false;          // whether loop.changed() was called
  std::vector<Value> changed;  // with what it was called last
};

// A macro, a function of the environment (by its name), or a method of `self`.
struct FunctionData;

class Value {
 public:
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
                   std::shared_ptr<const ListData>, std::shared_ptr<const DictData>,
                   std::shared_ptr<IteratorData>, std::shared_ptr<NamespaceData>,
                   std::shared_ptr<LoopData>, std::shared_ptr<const FunctionData>>;

  Value() : data_(None{}) {}
  static Value undefined(std::string what) { return Value(Undefined{std::move(what)}); }
  static Value boolean(bool value) { return Value(value); }
  static Value integer(int64_t value) { return Value(value); }
  static Value number(double value) { return Value(value); }
  static Value text(std::string value) {
    return Value(std::make_shared<const std::string>(std::move(value)));
  }
  // Errors: of invariant 3.
  static Value list(Run& run, std::vector<Value> items, bool tuple = false);
  static Value dict(Run& run, std::vector<std::pair<std::string, Value>> entries);
  static Value iterator(Run& run, std::vector<Value> items);
  static Value names() { return Value(std::make_shared<NamespaceData>()); }
  static Value loop(std::shared_ptr<LoopData> data) { return Value(std::move(data)); }
  static Value function(FunctionData data);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_number() const { return is_bool() || is_integer() || is_float(); }
  bool is_text() const { return text_if() != nullptr; }
  bool is_sequence() const { return list_if() != nullptr; }  // a list or a tuple
  bool is_dict() const { return dict_if() != nullptr; }
  // Whether a list, a dict or a namespace may hold it.
  bool is_plain() const;

  // Null where it is another.
  const std::string* text_if() const { return shared<const std::string>(); }
  const ListData* list_if() const { return shared<const ListData>(); }
  const DictData* dict_if() const { return shared<const DictData>(); }
  IteratorData* iterator_if() const { return shared<IteratorData>(); }
  NamespaceData* namespace_if() const { return shared<NamespaceData>(); }
  LoopData* loop_if() const { return shared<LoopData>(); }
  const FunctionData* function_if() const { return shared<const FunctionData>(); }

  bool as_bool() const { return std::get<bool>(data_); }
  // Of a bool or an integer; of any number.
  int64_t as_integer() const;
  double as_double() const;
  const std::string& what_is_undefined() const { return std::get<Undefined>(data_).what; }
  int depth() const;              // of a list or dict; else 0
  const char* kind_name() const;  // Python's: "str", "NoneType", ...

 private:
  explicit Value(Data data) : data_(std::move(data)) {}
  template <typename T>
  T* shared() const {
    const auto* found = std::get_if<std::shared_ptr<T>>(&data_);
    return found == nullptr ? nullptr : found->get();
  }

  Data data_;
};

struct FunctionData {
  std::string name;
  Value self;  // of a method
  const MacroSyntax* macro = nullptr;
  Scope* scope = nullptr;  // where the macro was defined
};

bool truth(const Value& value);
bool equal(Run& run, const Value& a, const Value& b);
// -1, 0 or 1. Error: values that have no order.
int compare(Run& run, const Value& a, const Value& b);
// Python's str() and repr(). Error: of a function or loop.
std::string to_text(Run& run, const Value& value);
// What a for goes through; an iterator is used up. Error: not iterable.
std::vector<Value> items_of(Run& run, const Value& value);
bool contains(Run& run, const Value& all, const Value& one);
std::string float_text(double value);

}  // namespace weft::chat
