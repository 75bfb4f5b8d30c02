// Starts the ranks of a world as processes of this machine, each the running program anew with
// arguments of its own, joined by sockets (tests/testing/socket_communicator.h).
//
// Thread safety: a process without other threads. Ownership: the processes end with the one that
// started them.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "worker/parallel/communicator.h"

namespace weft::testing {

struct RankProcesses {
  int ranks = 1;
  std::vector<std::string> arguments;        // of each, after the program's name
  std::chrono::milliseconds limit{600'000};  // then all are killed
  std::chrono::milliseconds grace{10'000};   // after one has failed: then the others are killed
};

// How a process ended.
struct RankEnd {
  int status = 0;     // that it exited with
  int signal = 0;     // that ended it; 0: none
  bool late = false;  // we ended it
  bool well() const { return status == 0 && signal == 0; }
  std::string text() const;
};

// By rank, when all have ended. Throws StatusError where no process can be started.
std::vector<RankEnd> run_rank_processes(const RankProcesses& what);

// In a process that run_rank_processes() started: the communicator of its world, taken once.
// Elsewhere null.
std::unique_ptr<Communicator> process_world();

}  // namespace weft::testing
