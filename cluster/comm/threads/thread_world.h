// Ranks that are threads of one process and meet in shared memory. For tests, and for several ranks
// on one machine without MPI.
//
// Thread safety: each communicator is used by one thread at a time; fail() from any thread.
// Ownership: communicators share the meeting place, which lives as long as one of them.
// Invariants: 1. sums run in rank order. 2. once fail() was called or a rank has destroyed its
// communicator, every call that waits for that rank throws StatusError(kUnavailable); nobody waits
// for ever.
#pragma once

#include <memory>
#include <string>

#include "worker/parallel/communicator.h"

namespace weft::comm {

class ThreadWorld {
 public:
  explicit ThreadWorld(int size);
  // The communicator of `rank`; each is taken once.
  std::unique_ptr<Communicator> take(int rank);
  // Marks the world, and all that was split from it, as lost.
  void fail(const std::string& reason);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace weft::comm
