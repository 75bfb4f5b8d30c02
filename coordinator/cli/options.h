// The command line of `weft`: options, help, and which command they call.
// Thread safety: one thread. Ownership: the parser owns the options until run() has ended.
#pragma once

namespace weft::cli {

// Parses, runs the command, gives the exit status. Errors of usage are told on standard error.
int run(int argc, char** argv);

}  // namespace weft::cli
