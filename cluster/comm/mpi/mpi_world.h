// A process's membership in the MPI job that started it, and its communicator.
//
// Thread safety: MPI_THREAD_FUNNELED: the thread that constructs it makes every call, also those of
// the communicators. Ownership: one a process; outlives every communicator taken from it.
// Invariants: 1. an MPI error comes back as StatusError(kUnavailable) and does not end the process.
// 2. a rank that leaves early (an exception) calls abort(): peers would wait for it for ever.
#pragma once

#include <memory>
#include <string>

#include "proto/base/status.h"
#include "worker/parallel/communicator.h"

namespace weft::comm {

class MpiWorld {
 public:
  // MPI_Init_thread. Error: kUnavailable where that fails or the library has no funneled threads.
  static Result<std::unique_ptr<MpiWorld>> create();
  // MPI_Finalize (a collective), unless an exception is in flight or a peer was lost.
  ~MpiWorld();
  MpiWorld(const MpiWorld&) = delete;
  MpiWorld& operator=(const MpiWorld&) = delete;

  int rank() const;
  int size() const;
  std::string processor_name() const;
  // All ranks, in a context of its own. A collective.
  std::unique_ptr<Communicator> world() const;
  // Ends every rank of the job; does not return. mpirun's exit status becomes `code`.
  [[noreturn]] static void abort(int code);

 private:
  MpiWorld() = default;
};

}  // namespace weft::comm
