// Completion scripts for shells, written from the commands' own options.
// Thread safety: pure function.
#pragma once

#include <string>
#include <vector>

namespace weft::cli {

struct CommandWords {
  std::string name;
  std::string help;
  std::vector<std::string> options;
};

// `shell`: bash, zsh or fish.
std::string completion_script(const std::string& shell, const std::vector<CommandWords>& commands);

}  // namespace weft::cli
