#include <CLI/CLI.hpp>

#include "coordinator/cli/command_tree.h"

namespace weft::cli {
namespace {

// "{a,b}" of "TEXT:{a,b}".
std::vector<std::string> choices_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const size_t start = type.find('{'), end = type.find('}');
  if (start == std::string::npos || end == std::string::npos) return {};
  return CLI::detail::split(type.substr(start + 1, end - start - 1), ',');
}

// Whether a value of this name may be a file here.
bool is_path(const std::string& type) {
  return type == kPath || type == "FILE" || type == "FOLDER" || type == "TOKENIZER" ||
         type == "TOKEN";
}

CommandWords words_of_one(const CLI::App& app) {
  CommandWords words{app.get_name(), app.get_description(), {}, {}};
  for (const CLI::Option* option : app.get_options()) {
    OptionWords entry;
    entry.help = option->get_description();
    entry.takes_value = option->get_items_expected_max() > 0;
    entry.choices = choices_of(*option);
    entry.takes_path = is_path(option->get_type_name());
    if (option->get_positional()) {
      entry.name = option->get_name();
      words.positionals.push_back(std::move(entry));
      continue;
    }
    entry.name = "--" + option->get_lnames().front();
    if (!option->get_snames().empty()) entry.short_name = "-" + option->get_snames().front();
    words.options.push_back(std::move(entry));
  }
  return words;
}

}  // namespace

std::vector<CommandWords> words_of(const CLI::App& app) {
  std::vector<CommandWords> words = {words_of_one(app)};
  words.front().name.clear();
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    words.push_back(words_of_one(*command));
  }
  return words;
}

}  // namespace weft::cli
