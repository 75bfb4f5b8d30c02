// The command line of `weft`: parses it, runs the command, tells of errors of usage.
// Thread safety: one thread. Ownership: the parser owns the options until run() has ended.
#pragma once

#include <vector>

#include "coordinator/cli/completion.h"

namespace weft::cli {

// Parses, runs the command, gives the exit status (exit_codes.h).
int run(int argc, char** argv);

// Every command with its options, in words (command_tree.h).
std::vector<CommandWords> all_commands();

}  // namespace weft::cli
