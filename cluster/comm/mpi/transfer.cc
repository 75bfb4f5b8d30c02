#include "cluster/comm/mpi/transfer.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <string>
#include <thread>

#include "proto/base/status.h"

namespace weft::comm {
namespace {

constexpr std::chrono::microseconds kSpin{50}, kNapMin{50}, kNapMax{1000};
constexpr int kTag = 0;  // messages between two ranks arrive in the order of their posting

std::atomic<bool> world_lost = false;
std::atomic<int> abort_code = 0;  // 0: none asked for
std::atomic<uint64_t> moved = 0;

// The pieces of one direction: posted in order, finished in order.
struct Lane {
  Lane(size_t bytes, size_t piece) : pieces((bytes + piece - 1) / piece) {}
  bool can_post() const { return posted < pieces && posted - done < Transfer::kWindow; }
  bool finished() const { return done == pieces; }
  MPI_Request& request(size_t index) { return requests[index % Transfer::kWindow]; }
  // True where the oldest piece under way is complete.
  bool test_oldest() {
    if (done == posted) return false;
    int complete = 0;
    check_mpi(MPI_Test(&request(done), &complete, MPI_STATUS_IGNORE), "MPI_Test");
    return complete != 0;
  }

  const size_t pieces;
  size_t posted = 0, done = 0;
  std::array<MPI_Request, Transfer::kWindow> requests{};
};

size_t piece_bytes(size_t whole, size_t index) {
  return std::min(Transfer::kPiece, whole - index * Transfer::kPiece);
}

}  // namespace

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  world_lost = true;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw StatusError(
      Status(Code::kUnavailable,
             fmt::format("{}: {}", call, std::string(text.data(), static_cast<size_t>(length)))));
}

bool mpi_world_lost() { return world_lost; }
void lose_mpi_world() { world_lost = true; }
void abort_mpi_world(int code) { abort_code = code; }
uint64_t mpi_messages_moved() { return moved; }

void Backoff::wait() {
  if (abort_code != 0) MPI_Abort(MPI_COMM_WORLD, abort_code);
  if (world_lost) throw StatusError(Status(Code::kUnavailable, "this rank gives up"));
  const auto now = std::chrono::steady_clock::now();
  if (!waiting_) {
    waiting_ = true;
    since_ = now;
  }
  const auto waited = std::chrono::duration_cast<std::chrono::microseconds>(now - since_);
  if (waited < kSpin) {
    sched_yield();
  } else {
    std::this_thread::sleep_for(std::clamp(waited / 16, kNapMin, kNapMax));
  }
}

void wait_all(std::span<MPI_Request> requests) {
  Backoff backoff;
  int complete = 0;
  while (true) {
    check_mpi(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &complete,
                          MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (complete != 0) return;
    backoff.wait();
  }
}

void Transfer::exchange(const Message& send, const Message& receive, const Fold& fold) {
  if (fold && aside_.empty() && receive.bytes != 0) aside_.resize(kWindow * kPiece);
  const auto landing = [&](size_t index) {
    return fold ? aside_.data() + index % kWindow * kPiece : receive.data + index * kPiece;
  };
  Lane in(receive.bytes, kPiece), out(send.bytes, kPiece);
  Backoff backoff;
  while (!in.finished() || !out.finished()) {
    for (; in.can_post(); ++in.posted) {
      check_mpi(
          MPI_Irecv(landing(in.posted), static_cast<int>(piece_bytes(receive.bytes, in.posted)),
                    MPI_BYTE, receive.rank, kTag, comm_, &in.request(in.posted)),
          "MPI_Irecv");
    }
    for (; out.can_post(); ++out.posted) {
      check_mpi(MPI_Isend(send.data + out.posted * kPiece,
                          static_cast<int>(piece_bytes(send.bytes, out.posted)), MPI_BYTE,
                          send.rank, kTag, comm_, &out.request(out.posted)),
                "MPI_Isend");
    }
    const bool arrived = in.test_oldest(), left = out.test_oldest();
    if (arrived) {
      const size_t bytes = piece_bytes(receive.bytes, in.done);
      if (fold) fold(landing(in.done), in.done * kPiece, bytes);
      ++in.done;
    }
    if (left) ++out.done;
    if (arrived || left) {
      ++moved;
      backoff.progress();
    } else {
      backoff.wait();
    }
  }
  count_sent(send.bytes);
}

}  // namespace weft::comm
