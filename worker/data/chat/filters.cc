#include "worker/data/chat/filters.h"

#include "worker/data/chat/filter_table.h"

namespace weft::chat {
namespace {

Filter find(std::string_view name) {
  for (const FilterTable* table : {&text_filters(), &list_filters()}) {
    const auto found = table->find(name);
    if (found != table->end()) return found->second;
  }
  return nullptr;
}

}  // namespace

bool is_filter(std::string_view name) { return find(name) != nullptr; }

Value filtered(Run& run, std::string_view name, const Value& value, Arguments arguments) {
  const Filter filter = find(name);
  if (filter == nullptr) run.refuse("the filter '" + std::string(name) + "' is not supported");
  Value result = filter(run, value, arguments);
  arguments.done(run);
  return result;
}

}  // namespace weft::chat
