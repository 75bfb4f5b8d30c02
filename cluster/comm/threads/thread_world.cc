#include "cluster/comm/threads/thread_world.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "cluster/comm/arguments.h"
#include "cluster/comm/communication_thread.h"
#include "cluster/comm/reduce_elements.h"
#include "cluster/comm/threads/meeting.h"
#include "worker/parallel/mesh.h"

namespace weft::comm {
namespace {

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Meeting> meeting, int rank,
                     std::shared_ptr<CommunicationThread> thread)
      : meeting_(std::move(meeting)), rank_(rank), thread_(std::move(thread)) {}
  ~ThreadCommunicator() override {
    meeting_->leave(rank_);  // what was started and waits for others gives up
    thread_->wait_idle();
  }

  int rank() const override { return rank_; }
  int size() const override { return meeting_->size(); }
  std::unique_ptr<Communicator> do_split(int color, int key, const char* name,
                                         const Site& site) override;
  void do_all_reduce(Tensor& inout, ReduceOp op, const Site& site) override;
  void do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                     const Site& site) override;
  void do_reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                         const Site& site) override;
  void do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                     std::span<const int64_t> receive_counts, const Site& site) override;
  void do_broadcast(Tensor& inout, int root, const Site& site) override;
  void do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                       const Site& site) override;
  void do_barrier(const Site&) override {
    thread_->wait_idle();
    meeting_->arrive(rank_, {});
    meeting_->depart();
  }
  Pending start(std::function<void(Communicator&)> collectives) override {
    return Pending(thread_->start([this, run = std::move(collectives)] { run(*this); }));
  }
  void call(const std::function<void(Communicator&)>& collectives) override {
    thread_->call([&] { collectives(*this); });
  }
  int64_t bytes_sent() const override { return bytes_sent_; }

 private:
  // Adds up elements [start, start + count) of all ranks' `in`, in rank order, into `out`.
  void reduce_range(std::byte* out, int64_t start, int64_t count, DType dtype, ReduceOp op) const {
    std::vector<const void*> terms;
    for (int r = 0; r < size(); ++r) {
      terms.push_back(static_cast<const std::byte*>(meeting_->board(r).in) +
                      static_cast<size_t>(start) * size_of(dtype));
    }
    reduce_terms(out, terms, count, dtype, op);
  }

  const std::shared_ptr<Meeting> meeting_;
  const int rank_;
  const std::shared_ptr<CommunicationThread> thread_;  // of the rank
  std::atomic<int64_t> bytes_sent_ = 0;
  std::vector<std::byte> scratch_;
};

std::unique_ptr<Communicator> ThreadCommunicator::do_split(int color, int key, const char*,
                                                           const Site&) {
  thread_->wait_idle();
  meeting_->arrive(rank_, {.color = color, .key = key});
  std::vector<std::pair<int, int>> members;  // (key, rank)
  for (int r = 0; r < size(); ++r) {
    if (meeting_->board(r).color == color) members.emplace_back(meeting_->board(r).key, r);
  }
  std::sort(members.begin(), members.end());
  const auto mine = std::find(members.begin(), members.end(), std::pair(key, rank_));
  meeting_->depart();
  Published publish;
  if (mine == members.begin()) {
    publish.split = std::make_shared<Meeting>(meeting_->world(), static_cast<int>(members.size()));
  }
  meeting_->arrive(rank_, std::move(publish));
  std::shared_ptr<Meeting> group = meeting_->board(members.front().second).split;
  meeting_->depart();
  return std::make_unique<ThreadCommunicator>(std::move(group),
                                              static_cast<int>(mine - members.begin()), thread_);
}

void ThreadCommunicator::do_all_reduce(Tensor& inout, ReduceOp op, const Site&) {
  check_contiguous(inout);
  check_reducible(inout.dtype());
  thread_->wait_idle();
  if (size() == 1) return;
  const Part part = part_of(inout.elements(), size(), rank_);
  const size_t width = size_of(inout.dtype());
  const size_t offset = static_cast<size_t>(part.start) * width;
  const size_t bytes = static_cast<size_t>(part.length) * width;
  scratch_.resize(bytes);
  meeting_->arrive(rank_, {.in = inout.raw(), .out = inout.raw()});
  reduce_range(scratch_.data(), part.start, part.length, inout.dtype(), op);
  for (int r = 0; r < size() && bytes != 0; ++r) {  // nobody else touches this part
    std::memcpy(static_cast<std::byte*>(meeting_->board(r).out) + offset, scratch_.data(), bytes);
  }
  meeting_->depart();
  bytes_sent_ +=
      static_cast<int64_t>(inout.bytes() - bytes + bytes * static_cast<size_t>(size() - 1));
}

void ThreadCommunicator::do_all_gather(const Tensor& in, Tensor& out,
                                       std::span<const int64_t> counts, const Site&) {
  check_parts(*this, in, out, counts);
  const size_t width = size_of(in.dtype());
  thread_->wait_idle();
  meeting_->arrive(rank_, {.in = in.raw()});
  std::byte* place = static_cast<std::byte*>(out.raw());
  for (int r = 0; r < size(); ++r) {
    const size_t bytes = static_cast<size_t>(counts[static_cast<size_t>(r)]) * width;
    if (bytes != 0) std::memmove(place, meeting_->board(r).in, bytes);
    place += bytes;
  }
  meeting_->depart();
  bytes_sent_ += static_cast<int64_t>(in.bytes()) * (size() - 1);
}

void ThreadCommunicator::do_reduce_scatter(const Tensor& in, Tensor& out,
                                           std::span<const int64_t> counts, const Site&) {
  check_parts(*this, out, in, counts);
  check_reducible(in.dtype());
  thread_->wait_idle();
  meeting_->arrive(rank_, {.in = in.raw()});
  const int64_t start = total(counts.first(static_cast<size_t>(rank_)));
  reduce_range(static_cast<std::byte*>(out.raw()), start, out.elements(), in.dtype(),
               ReduceOp::kSum);
  meeting_->depart();
  bytes_sent_ += static_cast<int64_t>(in.bytes() - out.bytes());
}

void ThreadCommunicator::do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts,
                                       Tensor& out, std::span<const int64_t> receive_counts,
                                       const Site&) {
  check_exchange(*this, in, send_counts, out, receive_counts);
  const size_t width = size_of(in.dtype());
  thread_->wait_idle();
  meeting_->arrive(rank_, {.in = in.raw(), .counts = send_counts});
  std::byte* place = static_cast<std::byte*>(out.raw());
  for (int r = 0; r < size(); ++r) {
    const Published& other = meeting_->board(r);
    const auto own = static_cast<size_t>(rank_);
    const int64_t count = receive_counts[static_cast<size_t>(r)];
    WEFT_CHECK(other.counts[own] == count, "sent {}, expected {}", other.counts[own], count);
    const size_t bytes = static_cast<size_t>(count) * width;
    const auto* from = static_cast<const std::byte*>(other.in) +
                       static_cast<size_t>(total(other.counts.first(own))) * width;
    if (bytes != 0) std::memcpy(place, from, bytes);
    place += bytes;
  }
  meeting_->depart();
  bytes_sent_ +=
      (in.elements() - send_counts[static_cast<size_t>(rank_)]) * static_cast<int64_t>(width);
}

void ThreadCommunicator::do_broadcast(Tensor& inout, int root, const Site&) {
  check_contiguous(inout);
  check_rank(*this, root);
  thread_->wait_idle();
  meeting_->arrive(rank_, {.in = inout.raw()});
  if (rank_ != root && inout.bytes() != 0) {
    std::memcpy(inout.raw(), meeting_->board(root).in, inout.bytes());
  }
  meeting_->depart();
  if (rank_ == root) bytes_sent_ += static_cast<int64_t>(inout.bytes()) * (size() - 1);
}

void ThreadCommunicator::do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                                         const Site&) {
  check_contiguous(send);
  check_contiguous(receive);
  check_rank(*this, to);
  check_rank(*this, from);
  thread_->wait_idle();
  meeting_->exchange(rank_, send.raw(), send.bytes(), to, receive.raw(), receive.bytes(), from);
  if (to != rank_) bytes_sent_ += static_cast<int64_t>(send.bytes());
}

}  // namespace

struct ThreadWorld::State {
  std::shared_ptr<World> world = std::make_shared<World>();
  std::shared_ptr<Meeting> meeting;
};

ThreadWorld::ThreadWorld(int size) : state_(std::make_shared<State>()) {
  WEFT_CHECK(size >= 1, "size {}", size);
  state_->meeting = std::make_shared<Meeting>(state_->world, size);
}

std::unique_ptr<Communicator> ThreadWorld::take(int rank) {
  WEFT_CHECK(rank >= 0 && rank < state_->meeting->size(), "rank {}", rank);
  return std::make_unique<ThreadCommunicator>(state_->meeting, rank,
                                              std::make_shared<CommunicationThread>());
}

void ThreadWorld::fail(const std::string& reason) {
  const std::lock_guard lock(state_->world->mutex);
  if (state_->world->lost) return;
  state_->world->lost = true;
  state_->world->reason = reason;
  state_->world->changed.notify_all();
}

}  // namespace weft::comm
