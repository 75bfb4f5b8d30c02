// Completion scripts for shells, written from the tree of commands itself (command_tree.h), so that
// they know every command, option and choice that the program has.
// Thread safety: pure function.
#pragma once

#include <string>
#include <vector>

namespace weft::cli {

struct OptionWords {
  std::string name;        // "--file"; of a positional "JOB"
  std::string short_name;  // "-f", or empty
  std::string help;
  bool takes_value = false;
  std::vector<std::string> choices;  // where the value is one of a few words
  bool takes_path = false;           // else, whether it may be the name of a file here
};

struct CommandWords {
  std::string name;  // empty: the options that stand in front of every command
  std::string help;
  std::vector<OptionWords> options;
  std::vector<OptionWords> positionals;
};

// `shell`: bash, zsh or fish. `commands`: the nameless one first.
std::string completion_script(const std::string& shell, const std::vector<CommandWords>& commands);

}  // namespace weft::cli
