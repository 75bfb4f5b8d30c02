#include "worker/data/chat/access.h"

#include <algorithm>
#include <charconv>

#include "worker/data/chat/functions.h"
#include "worker/data/chat/text.h"

namespace weft::chat {
namespace {

Value missing(const Value& of, const std::string& name) {
  const std::string whose =
      of.is_none() ? "'None'" : "'" + std::string(of.kind_name()) + " object'";
  return Value::undefined(whose + " has no attribute '" + name + "'");
}

Value loop_attribute(const Value& of, const LoopData& loop, const std::string& name) {
  const auto size = static_cast<int64_t>(loop.items.size());
  if (name == "index") return Value::integer(loop.index0 + 1);
  if (name == "index0") return Value::integer(loop.index0);
  if (name == "revindex") return Value::integer(size - loop.index0);
  if (name == "revindex0") return Value::integer(size - loop.index0 - 1);
  if (name == "first") return Value::boolean(loop.index0 == 0);
  if (name == "last") return Value::boolean(loop.index0 + 1 == size);
  if (name == "length") return Value::integer(size);
  if (name == "depth") return Value::integer(1);
  if (name == "depth0") return Value::integer(0);
  if (name == "previtem") {
    return loop.index0 > 0 ? loop.items[static_cast<size_t>(loop.index0 - 1)]
                           : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return loop.index0 + 1 < size ? loop.items[static_cast<size_t>(loop.index0 + 1)]
                                  : Value::undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") return Value::function({name, of});
  return missing(of, name);
}

Value numbered(const Value& of, int64_t size, int64_t index, auto&& at) {
  if (index < 0) index += size;
  if (index >= 0 && index < size) return at(static_cast<size_t>(index));
  return Value::undefined(std::string(of.kind_name()) + " object has no element " +
                          std::to_string(index));
}

}  // namespace

Value attribute_of(Run& run, const Value& of, const std::string& name) {
  if (of.is_undefined()) run.refuse(of.what_is_undefined());
  if (const LoopData* loop = of.loop_if()) return loop_attribute(of, *loop, name);
  if (const NamespaceData* names = of.namespace_if()) {
    const auto found =
        std::ranges::find(names->entries, name, &std::pair<std::string, Value>::first);
    return found == names->entries.end() ? missing(of, name) : found->second;
  }
  switch (find_method(of, name)) {
    case Method::kSupported:
      return Value::function({name, of});
    case Method::kChanges:
      run.refuse("'" + name + "' would change a " + of.kind_name() +
                 ", which a template is not allowed to");
    case Method::kUnsupported:
      run.refuse(std::string("the method '") + name + "' of a " + of.kind_name() +
                 " is not supported");
    case Method::kNone:
      break;
  }
  if (const DictData* dict = of.dict_if()) {
    run.spend(static_cast<int64_t>(dict->entries.size()));
    if (const Value* found = dict->find(name)) return *found;
  }
  return missing(of, name);
}

Value item_of(Run& run, const Value& of, const Value& key) {
  if (of.is_undefined()) run.refuse(of.what_is_undefined());
  if (const std::string* name = key.text_if()) {
    if (const DictData* dict = of.dict_if()) {
      run.spend(static_cast<int64_t>(dict->entries.size()));
      if (const Value* found = dict->find(*name)) return *found;
    }
    return attribute_of(run, of, *name);
  }
  if (key.is_integer() || key.is_bool()) {
    if (const ListData* list = of.list_if()) {
      return numbered(of, static_cast<int64_t>(list->items.size()), key.as_integer(),
                      [&](size_t i) { return list->items[i]; });
    }
    if (const std::string* text = of.text_if()) {
      run.spend(kUnitsOfItem * static_cast<int64_t>(text->size()));
      const auto all = characters(*text);
      return numbered(of, static_cast<int64_t>(all.size()), key.as_integer(),
                      [&](size_t i) { return Value::text(std::string(all[i])); });
    }
  }
  return Value::undefined(std::string(of.kind_name()) + " object has no such element");
}

Value slice_of(Run& run, const Value& of, std::optional<int64_t> start, std::optional<int64_t> stop,
               std::optional<int64_t> step) {
  if (of.is_undefined()) run.refuse(of.what_is_undefined());
  if (step == 0) run.refuse("a slice's step must not be 0");
  const auto each = [&](int64_t size, auto&& take) {
    const SliceRange range = slice_range(start, stop, step.value_or(1), size);
    for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop;) {
      take(static_cast<size_t>(i));
      // A step beyond the end must not overflow.
      if (range.step > 0 ? range.step > range.stop - i : range.step < range.stop - i) break;
      i += range.step;
    }
  };
  if (const ListData* list = of.list_if()) {
    std::vector<Value> items;
    each(static_cast<int64_t>(list->items.size()),
         [&](size_t i) { items.push_back(list->items[i]); });
    return Value::list(run, std::move(items), list->tuple);
  }
  if (const std::string* text = of.text_if()) {
    run.spend(kUnitsOfItem * static_cast<int64_t>(text->size()));
    const auto all = characters(*text);
    std::string slice;
    each(static_cast<int64_t>(all.size()), [&](size_t i) { slice += all[i]; });
    return Value::text(std::move(slice));
  }
  run.refuse(std::string("a ") + of.kind_name() + " has no slices");
}

Value path_of(Run& run, const Value& of, const Value& path) {
  if (!path.is_text()) return item_of(run, of, path);
  Value at = of;
  for (const std::string_view part : split(*path.text_if(), ".", -1, false)) {
    int64_t number = 0;
    const auto read = std::from_chars(part.data(), part.data() + part.size(), number);
    const bool counts =
        read.ec == std::errc() && read.ptr == part.data() + part.size() && part.front() != '-';
    at = item_of(run, at, counts ? Value::integer(number) : Value::text(std::string(part)));
  }
  return at;
}

}  // namespace weft::chat
