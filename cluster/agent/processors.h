// The processors of this machine, and which of them the threads of a slot's rank are pinned to.
#pragma once

#include <string>
#include <vector>

#include "proto/base/status.h"

namespace weft {

struct Processor {
  int number = 0;
  int package = 0, core = 0;  // two of a core share its units
  auto operator<=>(const Processor&) const = default;
};

// Those that this process may run on, a core's beside each other. None in a container that may use
// the whole machine: others may too, whose agents this one would not see.
std::vector<Processor> own_processors();

// A processor for each of a rank's threads. The slots share out `all` in equal runs; of a run's
// cores each has one thread before any has two. Empty where a run has fewer processors than that.
std::vector<int> processors_of_slot(const std::vector<Processor>& all, int slots, int slot,
                                    int threads);

// Tells an agent whether it is the only one of its user on the machine: each holds a shared lock of
// one file, until its process ends. Ownership: copies are of the same lock.
class AgentsOfMachine {
 public:
  AgentsOfMachine() = default;  // of nobody: never alone
  // `folder` is the same for all of them. Error: the file cannot be made or locked.
  static Result<AgentsOfMachine> join(const std::string& folder);
  bool alone() const;

 private:
  int fd_ = -1;
};

}  // namespace weft
