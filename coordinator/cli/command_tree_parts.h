// The pieces that the tree of commands is put together from. Private to command_tree.cc and its
// like. Thread safety: as command_tree.h.
#pragma once

#include <functional>
#include <string>

#include "coordinator/cli/command_tree.h"

namespace weft::cli {

CLI::App* add(CLI::App& app, Parsed& p, const std::string& name, const std::string& help,
              std::function<int()> command);

// evaluate, classify, embed, answer, transcribe (model_command_tree.cc).
void add_model_commands(CLI::App& app, Parsed& p);

}  // namespace weft::cli
