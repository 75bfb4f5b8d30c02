// Moving bytes between two MPI ranks in pieces, several under way at once, without burning a core.
//
// Several ranks share few cores, so nobody blocks inside MPI: a transfer tests its requests, yields
// the processor for the first kSpin of waiting, then naps for a sixteenth of what it has waited.
//
// Thread safety: the thread that initialized MPI; lose_mpi_world, abort_mpi_world and bytes_sent:
// any. Errors: StatusError(kUnavailable).
#pragma once

#include <mpi.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

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
  void progress() { waiting_ = false; }
  void wait();

 private:
  bool waiting_ = false;
  std::chrono::steady_clock::time_point since_;
};

// Waits for all requests.
void wait_all(std::span<MPI_Request> requests);

struct Message {
  std::byte* data = nullptr;  // never written to where it is sent
  size_t bytes = 0;
  int rank = 0;
};

class Transfer {
 public:
  static constexpr size_t kPiece = size_t{256} << 10;  // bytes; a multiple of every element's size
  static constexpr size_t kWindow = 16;                // pieces under way in each direction

  explicit Transfer(MPI_Comm comm) : comm_(comm) {}

  // Called with a piece that has arrived: its bytes, their offset in the message, their number.
  using Fold = std::function<void(const std::byte* piece, size_t offset, size_t bytes)>;
  // Sends and receives at once. Without fold, pieces go straight to their place; with it, each is
  // received aside and handed to fold, in order.
  void exchange(const Message& send, const Message& receive, const Fold& fold = {});

  int64_t bytes_sent() const { return bytes_sent_; }
  void count_sent(size_t bytes) { bytes_sent_ += static_cast<int64_t>(bytes); }

 private:
  MPI_Comm comm_;
  std::atomic<int64_t> bytes_sent_ = 0;
  std::vector<std::byte> aside_;  // kWindow pieces
};

}  // namespace weft::comm
