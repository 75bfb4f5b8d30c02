// A process's membership in the MPI job that started it, and its communicator.
//
// Thread safety: MPI_THREAD_SERIALIZED: whoever has the rank's communication thread, or stands in
// for it (cluster/comm/communication_thread.h), makes every call of MPI, also those of the
// communicators; abort() from any thread. Ownership: one
// a process; outlives every communicator taken from it. Invariants: 1. an MPI error comes back as
// StatusError(kUnavailable) and does not end the process.
// 2. a rank that leaves early (an exception) calls abort(): peers would wait for it for ever.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "proto/base/status.h"
#include "worker/parallel/communicator.h"

namespace weft::comm {

class CommunicationThread;

class MpiWorld {
 public:
  // MPI_Init_thread. Error: kUnavailable where that fails or the library does not let threads take
  // turns.
  static Result<std::unique_ptr<MpiWorld>> create();
  // MPI_Finalize (a collective), unless an exception is in flight or a peer was lost.
  ~MpiWorld();
  MpiWorld(const MpiWorld&) = delete;
  MpiWorld& operator=(const MpiWorld&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& processor_name() const { return processor_name_; }
  // Calls MPI otherwise: `work` has its turn as a collective has. Throws StatusError where it
  // throws.
  void call(const std::function<void()>& work) const;
  // All ranks, in a context of its own. A collective.
  std::unique_ptr<Communicator> world() const;
  // Grows with every piece of a message that has arrived or left; any thread.
  static uint64_t messages_moved();
  // Ends every rank of the job; does not return. mpirun's exit status becomes `code`.
  [[noreturn]] static void abort(int code);

 private:
  explicit MpiWorld(std::shared_ptr<CommunicationThread> thread);

  const std::shared_ptr<CommunicationThread> thread_;
  int rank_ = 0, size_ = 1;
  std::string processor_name_;
};

}  // namespace weft::comm
