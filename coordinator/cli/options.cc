#include "coordinator/cli/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <sstream>
#include <string_view>

#include "coordinator/cli/command_tree.h"
#include "coordinator/cli/usage.h"

namespace weft::cli {
namespace {

constexpr const char* kSummary = "Weft, a distributed training service";

// --json counts also where the rest of the line could not be parsed.
bool wants_json(int argc, char** argv) {
  for (int i = 1; i < argc && std::string_view(argv[i]) != "--"; ++i) {
    if (std::string_view(argv[i]) == "--json") return true;
  }
  return false;
}

// The first word that should be a command and is none; empty: there is one, or no word at all.
std::string wrong_command(const CLI::App& app, int argc, char** argv) {
  const std::vector<CommandWords> words = words_of(app);
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.starts_with("-")) {
      const auto& globals = words.front().options;
      i += std::any_of(globals.begin(), globals.end(), [&](const OptionWords& option) {
        return option.takes_value && option.name == word;
      });
      continue;
    }
    const bool known =
        std::any_of(words.begin() + 1, words.end(),
                    [&](const CommandWords& command) { return command.name == word; });
    return known ? "" : word;
  }
  return "";
}

Status unknown_command(const CLI::App& app, const std::string& word) {
  std::vector<std::string> names;
  for (const CommandWords& command : words_of(app)) names.push_back(command.name);
  const std::string meant = nearest(word, names);
  return Status(Code::kInvalidArgument, fmt::format("there is no command '{}'", printable(word)))
      .with_field("COMMAND")
      .with_rule(meant.empty() ? "'weft --help' lists the commands"
                               : fmt::format("did you mean 'weft {}'?", meant));
}

// CLI11 begins a message about one option with its name: "--limit: Value ...".
Status usage_status(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  const std::string word = wrong_command(app, argc, argv);
  if (!word.empty()) return unknown_command(app, word);
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  const std::string command =
      chosen.empty() ? "weft" : fmt::format("weft {}", chosen.front()->get_name());
  std::string message = error.what();
  while (message.ends_with('\n')) message.pop_back();
  Status status(Code::kInvalidArgument, printable(message));
  const size_t end = message.find_first_of(": ");
  const std::string first = message.substr(0, end);
  const bool names_one =
      first.starts_with("--") ||
      (first.size() > 1 && first.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ") == first.npos);
  if (names_one) status.with_field(first);
  return status.with_rule(fmt::format("'{} --help' shows what there is", command));
}

int tell_usage(const Context& context, const CLI::App& app, const CLI::ParseError& error, int argc,
               char** argv) {
  if (argc < 2) {  // a newcomer's first call
    fmt::print(stderr, "{}", app.help());
    return kExitUsage;
  }
  report(context, usage_status(app, error, argc, argv));
  return kExitUsage;
}

// A command that did what it should has failed if its output is not whole. ferror() tells of
// every write, also of those that were flushed long before the end.
int after_output(const Context& context, int exit) {
  const bool whole = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (whole || exit != kExitOk) return exit;
  return report(context, Status(Code::kResourceExhausted, "cannot write the output"));
}

}  // namespace

std::vector<CommandWords> all_commands() {
  Parsed parsed;
  CLI::App app(kSummary, "weft");
  add_commands(app, parsed);
  return words_of(app);
}

int run(int argc, char** argv) {
  Parsed parsed;
  parsed.context.terminal = find_terminal();
  CLI::App app(kSummary, "weft");
  app.require_subcommand(1);
  add_commands(app, parsed);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    std::ostringstream text;
    const int exit = app.exit(asked, text, text);
    print(text.str());
    return after_output(parsed.context, exit);
  } catch (const CLI::ParseError& error) {
    parsed.context.json = wants_json(argc, argv);
    return tell_usage(parsed.context, app, error, argc, argv);
  }
  if (parsed.generate.seed) parsed.generate.seed = parsed.seed;
  int exit = kExitError;
  try {
    exit = parsed.command();
  } catch (const std::exception& error) {
    return report(parsed.context, Status(Code::kInternal, error.what()));
  }
  return after_output(parsed.context, exit);
}

}  // namespace weft::cli
