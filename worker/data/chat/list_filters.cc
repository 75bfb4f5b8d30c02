// Filters of lists and dicts.
#include <algorithm>

#include "worker/data/chat/access.h"
#include "worker/data/chat/cases.h"
#include "worker/data/chat/filter_table.h"
#include "worker/data/chat/filters.h"
#include "worker/data/chat/tests.h"

namespace weft::chat {
namespace {

Value length(Run& run, const Value& value, Arguments& /*given*/) {
  if (const std::string* text = value.text_if()) return Value::integer(character_count(*text));
  if (value.is_undefined()) return Value::integer(0);
  if (const ListData* list = value.list_if()) {
    return Value::integer(static_cast<int64_t>(list->items.size()));
  }
  if (const DictData* dict = value.dict_if()) {
    return Value::integer(static_cast<int64_t>(dict->entries.size()));
  }
  if (const LoopData* loop = value.loop_if()) {
    return Value::integer(static_cast<int64_t>(loop->items.size()));
  }
  run.refuse(std::string("a ") + value.kind_name() + " has no length");
}

Value first(Run& run, const Value& value, Arguments& /*given*/) {
  if (IteratorData* iterator = value.iterator_if()) {
    if (iterator->next < iterator->items.size()) return iterator->items[iterator->next++];
    return Value::undefined("No first item, sequence was empty.");
  }
  const std::vector<Value> items = items_of(run, value);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last(Run& run, const Value& value, Arguments& /*given*/) {
  if (value.iterator_if() != nullptr) run.refuse("a generator has no last item; take |list before");
  const std::vector<Value> items = items_of(run, value);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value list(Run& run, const Value& value, Arguments& /*given*/) {
  return Value::list(run, items_of(run, value));
}

Value join(Run& run, const Value& value, Arguments& given) {
  const std::string between = to_text(run, given.take_or(run, "d", Value::text("")));
  const Value attribute = given.take_or(run, "attribute", Value());
  Text out(run);
  bool begun = false;
  for (const Value& item : items_of(run, value)) {
    if (begun) out << between;
    begun = true;
    out << to_text(run, attribute.is_none() ? item : path_of(run, item, attribute));
  }
  return Value::text(out.take());
}

Value items(Run& run, const Value& value, Arguments& /*given*/) {
  if (!value.is_dict() && !value.is_undefined()) run.refuse("items needs a dict");
  std::vector<Value> all;
  if (const DictData* dict = value.dict_if()) {
    for (const auto& [key, held] : dict->entries) {
      all.push_back(Value::list(run, {Value::text(key), held}, true));
    }
  }
  return Value::iterator(run, std::move(all));
}

Value reverse(Run& run, const Value& value, Arguments& /*given*/) {
  std::vector<Value> all = items_of(run, value);
  std::ranges::reverse(all);
  if (!value.is_text()) return Value::iterator(run, std::move(all));
  std::string text;
  for (const Value& one : all) text += *one.text_if();
  return Value::text(std::move(text));
}

// What items are compared by: texts in lower case, unless their case matters.
Value key_of(Run& run, const Value& item, const Value& attribute, bool case_sensitive) {
  Value key = attribute.is_none() ? item : path_of(run, item, attribute);
  if (case_sensitive || !key.is_text()) return key;
  need_ascii(run, *key.text_if(), "the order without case");
  return Value::text(lower(*key.text_if()));
}

std::vector<Value> sorted(Run& run, const std::vector<Value>& all, bool reversed, auto&& key) {
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : all) keyed.emplace_back(key(item), item);
  std::ranges::stable_sort(keyed, [&](const auto& a, const auto& b) {
    return reversed ? compare(run, b.first, a.first) < 0 : compare(run, a.first, b.first) < 0;
  });
  std::vector<Value> items;
  for (auto& one : keyed) items.push_back(std::move(one.second));
  return items;
}

Value sort(Run& run, const Value& value, Arguments& given) {
  const bool reversed = given.take_bool(run, "reverse", false);
  const bool case_sensitive = given.take_bool(run, "case_sensitive", false);
  const Value attribute = given.take_or(run, "attribute", Value());
  if (attribute.is_text() && attribute.text_if()->find(',') != std::string::npos) {
    run.refuse("an order by several attributes is not supported");
  }
  return Value::list(run, sorted(run, items_of(run, value), reversed, [&](const Value& item) {
                       return key_of(run, item, attribute, case_sensitive);
                     }));
}

Value dictsort(Run& run, const Value& value, Arguments& given) {
  const bool case_sensitive = given.take_bool(run, "case_sensitive", false);
  const Value by = given.take_or(run, "by", Value::text("key"));
  const bool reversed = given.take_bool(run, "reverse", false);
  if (!by.is_text() || (*by.text_if() != "key" && *by.text_if() != "value")) {
    run.refuse("'by' must be 'key' or 'value'");
  }
  if (!value.is_dict()) run.refuse("dictsort needs a dict");
  const int64_t at = *by.text_if() == "key" ? 0 : 1;
  Arguments none;
  const std::vector<Value> all = items_of(run, items(run, value, none));
  return Value::list(run, sorted(run, all, reversed, [&](const Value& item) {
                       return key_of(run, item, Value::integer(at), case_sensitive);
                     }));
}

Value unique(Run& run, const Value& value, Arguments& given) {
  const bool case_sensitive = given.take_bool(run, "case_sensitive", false);
  const Value attribute = given.take_or(run, "attribute", Value());
  std::vector<Value> keys, kept;
  for (const Value& item : items_of(run, value)) {
    const Value key = key_of(run, item, attribute, case_sensitive);
    const bool seen =
        std::ranges::any_of(keys, [&](const Value& other) { return equal(run, key, other); });
    if (seen) continue;
    keys.push_back(key);
    kept.push_back(item);
  }
  return Value::iterator(run, std::move(kept));
}

std::string name_of(Run& run, const Value& name) {
  if (!name.is_text()) run.refuse("a filter's or test's name must be a str");
  return *name.text_if();
}

Value map(Run& run, const Value& value, Arguments& given) {
  std::vector<Value> made;
  if (!truth(value)) return Value::iterator(run, {});
  if (given.positional.empty()) {
    const Value path = given.need(run, "attribute");
    const Value otherwise = given.take_or(run, "default", Value());
    for (const Value& item : items_of(run, value)) {
      Value found = path_of(run, item, path);
      const bool replaces = found.is_undefined() && !otherwise.is_none();
      made.push_back(replaces ? otherwise : std::move(found));
    }
    return Value::iterator(run, std::move(made));
  }
  Arguments rest = given;
  const std::string name = name_of(run, rest.positional.front());
  rest.positional.erase(rest.positional.begin());
  for (const Value& item : items_of(run, value)) made.push_back(filtered(run, name, item, rest));
  given = Arguments();
  return Value::iterator(run, std::move(made));
}

// select, reject and the same of an attribute.
template <bool kWanted, bool kAttribute>
Value select(Run& run, const Value& value, Arguments& given) {
  if (kAttribute && given.positional.empty()) run.refuse("an attribute's name is missing");
  Arguments rest = std::exchange(given, Arguments());
  std::vector<Value> kept;
  if (!truth(value)) return Value::iterator(run, {});
  Value attribute;
  if (kAttribute) {
    attribute = rest.positional.front();
    rest.positional.erase(rest.positional.begin());
  }
  const bool tests = !rest.positional.empty();
  const std::string name = tests ? name_of(run, rest.positional.front()) : "";
  if (tests) rest.positional.erase(rest.positional.begin());
  for (const Value& item : items_of(run, value)) {
    const Value held = kAttribute ? path_of(run, item, attribute) : item;
    if ((tests ? passes(run, name, held, rest) : truth(held)) == kWanted) kept.push_back(item);
  }
  return Value::iterator(run, std::move(kept));
}

}  // namespace

const FilterTable& list_filters() {
  static const FilterTable kFilters = {{"count", length},
                                       {"dictsort", dictsort},
                                       {"first", first},
                                       {"items", items},
                                       {"join", join},
                                       {"last", last},
                                       {"length", length},
                                       {"list", list},
                                       {"map", map},
                                       {"reject", select<false, false>},
                                       {"rejectattr", select<false, true>},
                                       {"reverse", reverse},
                                       {"select", select<true, false>},
                                       {"selectattr", select<true, true>},
                                       {"sort", sort},
                                       {"unique", unique}};
  return kFilters;
}

}  // namespace weft::chat
