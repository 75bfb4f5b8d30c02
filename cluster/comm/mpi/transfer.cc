#include "cluster/comm/mpi/transfer.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <string>
#include <thread>

#include "cluster/comm/communication_thread.h"
#include "cluster/comm/mpi/lanes.h"
#include "proto/base/status.h"

namespace weft::comm {
namespace {

constexpr std::chrono::microseconds kTestMin{10}, kTestMax{100}, kYield{50}, kNapMin{50},
    kBulkNapMin{100}, kNapMax{1000}, kBulkNapMax{2000};

std::atomic<bool> world_lost = false;
std::atomic<int> abort_code = 0;  // 0: none asked for
std::atomic<uint64_t> moved = 0;
std::chrono::microseconds test_time = kTestMax;  // whoever calls MPI

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

void Backoff::progress() {
  if (waiting_ && testing_) test_time = kTestMax;
  waiting_ = false;
  const auto now = Clock::now();
  if (progressed_ != Clock::time_point()) interval_ += (now - progressed_ - interval_) / 8;
  progressed_ = now;
}

void Backoff::wait(bool bulk) {
  if (abort_code != 0) MPI_Abort(MPI_COMM_WORLD, abort_code);
  if (world_lost) throw StatusError(Status(Code::kUnavailable, "this rank gives up"));
  const auto now = Clock::now();
  if (!waiting_) {
    waiting_ = true;
    testing_ = CommunicationThread::rank_waits();
    since_ = now;
  }
  if (testing_) {
    if (now - since_ < test_time) return;
    testing_ = false;
    test_time = kTestMin;
    since_ = now;
  }
  const auto waited = std::chrono::duration_cast<std::chrono::microseconds>(now - since_);
  if (bulk) {
    std::this_thread::sleep_for(std::clamp<Clock::duration>(
        std::max(Clock::duration(waited / 4), 2 * interval_), kBulkNapMin, kBulkNapMax));
  } else if (waited < kYield) {
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
    if (complete != 0) return backoff.progress();
    backoff.wait();
  }
}

void Transfer::exchange(const Message& send, const Message& receive, const Fold& fold) {
  Outgoing out(comm_, memory_, send);
  Incoming in(comm_, memory_, receive, fold, aside_);
  Backoff backoff;
  while (!in.finished() || !out.finished()) {
    const bool arrived = in.advance(), left = out.advance();
    if (arrived || left) {
      ++moved;
      backoff.progress();
    } else {
      backoff.wait(/*bulk=*/in.flows() || out.flows());
    }
  }
  count_sent(send.bytes);
}

}  // namespace weft::comm
