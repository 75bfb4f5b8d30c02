// Moving bytes between two MPI ranks without burning a core: read by the receiver within a host
// (peer_memory.h), else in pieces, several under way at once (lanes.h).
//
// Several ranks share few cores, so nobody blocks inside MPI: a transfer tests its requests, and
// between tests that found nothing it
//   1. goes on testing for up to kTestMax, where the rank waits and has nothing else to do, as long
//      as the last such wait has ended that soon (else kTestMin);
//   2. yields the processor for kYield;
//   3. naps for a sixteenth of what it has waited since, within [kNapMin, kNapMax].
// Between pieces of a long message it does not yield and naps for as long as two pieces take, or a
// quarter of its wait, within [kBulkNapMin, kBulkNapMax]: others are under way meanwhile, and what
// is computed on that core has it to itself more often.
//
// Thread safety: whoever may call MPI (mpi_world.h); lose_mpi_world, abort_mpi_world and
// bytes_sent: any. Errors: StatusError(kUnavailable).
#pragma once

#include <mpi.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cluster/comm/mpi/peer_memory.h"

namespace weft::comm {

// Throws StatusError(kUnavailable) with the call's name and MPI's own text; marks the world as
// lost.
void check_mpi(int code, const char* call);
bool mpi_world_lost();
// Whoever waits for a message from now on gives up (kUnavailable).
void lose_mpi_world();
// Grows with every piece that has arrived or left; any thread.
uint64_t mpi_messages_moved();
// The next wait ends every rank of the job with this exit code.
void abort_mpi_world(int code);

// Waits between tests that found nothing.
class Backoff {
 public:
  void progress();
  void wait(bool bulk = false);

 private:
  using Clock = std::chrono::steady_clock;
  bool waiting_ = false, testing_ = false;
  Clock::time_point since_, progressed_;
  Clock::duration interval_{};  // from a piece to the next, a running mean
};

// Waits for all requests.
void wait_all(std::span<MPI_Request> requests);

struct Message {
  std::byte* data = nullptr;  // never written to where it is sent
  size_t bytes = 0;
  int rank = 0;
};

// Called with a piece that has arrived: its bytes, their offset in the message, their number.
using Fold = std::function<void(const std::byte* piece, size_t offset, size_t bytes)>;

class Transfer {
 public:
  explicit Transfer(MPI_Comm comm) : comm_(comm), memory_(comm) {}

  // Sends and receives at once. Without fold, pieces go straight to their place; with it, each is
  // received aside and handed to fold, in order.
  void exchange(const Message& send, const Message& receive, const Fold& fold = {});

  int64_t bytes_sent() const { return bytes_sent_; }
  void count_sent(size_t bytes) { bytes_sent_ += static_cast<int64_t>(bytes); }

 private:
  MPI_Comm comm_;
  std::atomic<int64_t> bytes_sent_ = 0;
  PeerMemory memory_;
  std::vector<std::byte> aside_;  // where pieces wait to be folded
};

}  // namespace weft::comm
