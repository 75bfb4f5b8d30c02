#include "tests/testing/socket_communicator.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "cluster/comm/arguments.h"
#include "cluster/comm/reduce_elements.h"
#include "proto/base/status.h"
#include "worker/parallel/mesh.h"

namespace weft::testing {
namespace {

using Sent = std::span<const std::byte>;
using Room = std::span<std::byte>;

class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  ~Socket() { ::close(descriptor_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int get() const { return descriptor_; }

 private:
  const int descriptor_;
};
using Sockets = std::vector<std::shared_ptr<const Socket>>;  // by rank; this rank's is null

[[noreturn]] void lose(int rank, const char* why) {
  throw StatusError(
      Status(Code::kUnavailable, "rank " + std::to_string(rank) + " is lost: " + why));
}

// How much of what may move did; 0 where the socket is not ready.
size_t moved(ssize_t result, int rank) {
  if (result >= 0) return static_cast<size_t>(result);
  if (errno == EAGAIN || errno == EINTR) return 0;
  lose(rank, std::strerror(errno));
}

std::span<std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.raw()), tensor.bytes()};
}

void copy(Sent from, Room to) {
  WEFT_CHECK(from.size() == to.size(), "{} bytes into {}", from.size(), to.size());
  if (!from.empty()) std::memmove(to.data(), from.data(), from.size());
}

// `whole` in parts of these element counts.
template <typename Bytes>
std::vector<Bytes> cut(Bytes whole, std::span<const int64_t> counts, DType dtype) {
  std::vector<Bytes> parts;
  for (const int64_t count : counts) {
    const size_t bytes = static_cast<size_t>(count) * size_of(dtype);
    parts.push_back(whole.first(bytes));
    whole = whole.subspan(bytes);
  }
  return parts;
}

class SocketCommunicator final : public Communicator {
 public:
  SocketCommunicator(int rank, Sockets sockets) : rank_(rank), sockets_(std::move(sockets)) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(sockets_.size()); }
  std::unique_ptr<Communicator> do_split(int color, int key, const char* name,
                                         const Site& site) override;
  void do_all_reduce(Tensor& inout, ReduceOp op, const Site&) override {
    comm::check_contiguous(inout);
    comm::check_reducible(inout.dtype());
    const std::vector<Sent> same(sockets_.size(), bytes_of(inout));
    reduce(same, inout, op);
  }
  void do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                     const Site&) override {
    comm::check_parts(*this, in, out, counts);
    exchange(std::vector<Sent>(sockets_.size(), bytes_of(in)),
             cut(Room(bytes_of(out)), counts, out.dtype()));
  }
  void do_reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                         const Site&) override {
    comm::check_parts(*this, out, in, counts);
    comm::check_reducible(in.dtype());
    reduce(cut(Sent(bytes_of(in)), counts, in.dtype()), out, ReduceOp::kSum);
  }
  void do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                     std::span<const int64_t> receive_counts, const Site&) override {
    comm::check_exchange(*this, in, send_counts, out, receive_counts);
    exchange(cut(Sent(bytes_of(in)), send_counts, in.dtype()),
             cut(Room(bytes_of(out)), receive_counts, out.dtype()));
  }
  void do_broadcast(Tensor& inout, int root, const Site&) override {
    comm::check_contiguous(inout);
    comm::check_rank(*this, root);
    std::vector<Sent> out(sockets_.size());
    std::vector<Room> in(sockets_.size());
    if (rank_ == root) {
      std::fill(out.begin(), out.end(), bytes_of(inout));
      in[own()] = bytes_of(inout);
    } else {
      in[static_cast<size_t>(root)] = bytes_of(inout);
    }
    exchange(out, in);
  }
  void do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                       const Site&) override {
    comm::check_contiguous(send);
    comm::check_contiguous(receive);
    comm::check_rank(*this, to);
    comm::check_rank(*this, from);
    std::vector<Sent> out(sockets_.size());
    std::vector<Room> in(sockets_.size());
    out[static_cast<size_t>(to)] = bytes_of(send);
    in[static_cast<size_t>(from)] = bytes_of(receive);
    exchange(out, in);
  }
  void do_barrier(const Site&) override {
    const std::byte here{1};
    std::vector<std::byte> heard(sockets_.size());
    std::vector<Room> in;
    for (std::byte& each : heard) in.emplace_back(&each, 1);
    move(std::vector<Sent>(sockets_.size(), Sent(&here, 1)), in);
  }
  Pending start(std::function<void(Communicator&)> collectives) override {
    return comm::done_at_once(*this, collectives);
  }
  int64_t bytes_sent() const override { return bytes_sent_; }

 private:
  size_t own() const { return static_cast<size_t>(rank_); }
  // Sends out[r] to and fills in[r] from every rank r.
  void exchange(const std::vector<Sent>& out, const std::vector<Room>& in) {
    move(out, in);
    for (size_t r = 0; r < out.size(); ++r) {
      if (r != own()) bytes_sent_ += static_cast<int64_t>(out[r].size());
    }
  }
  void move(std::vector<Sent> out, std::vector<Room> in) const;
  void move_some(int rank, Sent& out, Room& in) const;
  // terms[r] goes to rank r; `into` gets what came, reduced in rank order.
  void reduce(const std::vector<Sent>& terms, Tensor& into, ReduceOp op) {
    std::vector<std::byte> all(into.bytes() * sockets_.size());
    const std::vector<int64_t> counts(sockets_.size(), into.elements());
    exchange(terms, cut(Room(all), counts, into.dtype()));
    std::vector<const void*> came;
    for (const Room& each : cut(Room(all), counts, into.dtype())) came.push_back(each.data());
    comm::reduce_terms(into.raw(), came, into.elements(), into.dtype(), op);
  }

  const int rank_;
  const Sockets sockets_;
  int64_t bytes_sent_ = 0;
};

void SocketCommunicator::move_some(int rank, Sent& out, Room& in) const {
  const int socket = sockets_[static_cast<size_t>(rank)]->get();
  if (!in.empty()) {
    const ssize_t got = ::recv(socket, in.data(), in.size(), MSG_DONTWAIT);
    if (got == 0) lose(rank, "it has ended");
    in = in.subspan(moved(got, rank));
  }
  if (!out.empty()) {
    out = out.subspan(
        moved(::send(socket, out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL), rank));
  }
}

void SocketCommunicator::move(std::vector<Sent> out, std::vector<Room> in) const {
  copy(out[own()], in[own()]);
  out[own()] = {};
  in[own()] = {};
  while (true) {
    std::vector<pollfd> waited;
    std::vector<int> ranks;
    for (int r = 0; r < size(); ++r) {
      const auto at = static_cast<size_t>(r);
      const int events = (out[at].empty() ? 0 : POLLOUT) | (in[at].empty() ? 0 : POLLIN);
      if (events == 0) continue;
      waited.push_back({sockets_[at]->get(), static_cast<short>(events), 0});
      ranks.push_back(r);
    }
    if (waited.empty()) return;
    (void)::poll(waited.data(), waited.size(), -1);
    for (size_t i = 0; i < waited.size(); ++i) {
      const auto at = static_cast<size_t>(ranks[i]);
      if (waited[i].revents != 0) move_some(ranks[i], out[at], in[at]);
    }
  }
}

std::unique_ptr<Communicator> SocketCommunicator::do_split(int color, int key, const char*,
                                                           const Site&) {
  const std::array<int, 2> mine{color, key};
  std::vector<std::array<int, 2>> all(sockets_.size());
  std::vector<Room> in;
  for (auto& each : all) in.push_back(std::as_writable_bytes(std::span(each)));
  move(std::vector<Sent>(sockets_.size(), std::as_bytes(std::span(mine))), in);
  std::vector<std::pair<int, int>> members;  // (key, rank)
  for (int r = 0; r < size(); ++r) {
    const auto& [its_color, its_key] = all[static_cast<size_t>(r)];
    if (its_color == color) members.emplace_back(its_key, r);
  }
  std::sort(members.begin(), members.end());
  Sockets sockets;
  for (const auto& [unused, r] : members) sockets.push_back(sockets_[static_cast<size_t>(r)]);
  const auto place = std::find(members.begin(), members.end(), std::pair(key, rank_));
  return std::make_unique<SocketCommunicator>(static_cast<int>(place - members.begin()),
                                              std::move(sockets));
}

}  // namespace

std::unique_ptr<Communicator> make_socket_communicator(int rank, const std::vector<int>& sockets) {
  Sockets owned(sockets.size());
  for (size_t r = 0; r < sockets.size(); ++r) {
    if (static_cast<int>(r) != rank) owned[r] = std::make_shared<const Socket>(sockets[r]);
  }
  return std::make_unique<SocketCommunicator>(rank, std::move(owned));
}

}  // namespace weft::testing
