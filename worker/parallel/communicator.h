// The ranks of one axis and the collectives among them. Implemented in cluster/comm: single (size
// one), threads (ranks of one process), mpi.
//
// A call returns when its collective is done. start() runs it beside the caller, on the rank's one
// communication thread, in the order of all starts and calls of the rank: what overlaps is the
// rank's own work, never two collectives of it.
//
// Every call knows the line that it stands in, for whoever watches the ranks
// (cluster/comm/watched_communicator.h); transports leave it aside.
//
// Thread safety: one thread of a rank at a time; all ranks call and start the same collectives of a
// communicator in the same order.
// Ownership: a rank owns its communicators; a split one may outlive the one it came from.
// Invariants: 1. every transport implements every call for every size, one included. 2. reductions
// run in an order that depends on size and element count only, so results repeat bit for bit. 3. a
// sum of half types is taken in fp32 and rounded once.
// Errors: a lost peer or transport is thrown as StatusError(kUnavailable). Tensors are contiguous.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>
#include <span>

#include "kernels/tensor/tensor.h"
#include "worker/parallel/pending.h"

namespace weft {

enum class ReduceOp { kSum, kMax, kMin };

using Site = std::source_location;  // of a call

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Ranks of equal color, ordered by key, then by rank. A collective. `name` is for people, and a
  // literal.
  std::unique_ptr<Communicator> split(int color, int key, const char* name = "",
                                      Site site = Site::current()) {
    return do_split(color, key, name, site);
  }

  void all_reduce(Tensor& inout, ReduceOp op, Site site = Site::current()) {  // but kI32, kU8
    do_all_reduce(inout, op, site);
  }
  // out is the concatenation, in rank order, of each rank's `in`; counts[r] elements come from rank
  // r (in has counts[rank()], out has their sum).
  void all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                  Site site = Site::current()) {
    do_all_gather(in, out, counts, site);
  }
  // in (sum of counts) is summed over ranks; rank r gets its part of counts[r] elements in out.
  void reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                      Site site = Site::current()) {
    do_reduce_scatter(in, out, counts, site);
  }
  // Part r of `in` (send_counts[r] elements) goes to rank r; out holds what came, in rank order.
  void all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                  std::span<const int64_t> receive_counts, Site site = Site::current()) {
    do_all_to_all(in, send_counts, out, receive_counts, site);
  }
  void broadcast(Tensor& inout, int root, Site site = Site::current()) {
    do_broadcast(inout, root, site);
  }
  // Sends to `to` while receiving from `from` (a ring shift); sizes may differ.
  void send_receive(const Tensor& send, int to, Tensor& receive, int from,
                    Site site = Site::current()) {
    do_send_receive(send, to, receive, from, site);
  }
  // The same, started.
  Pending start_send_receive(const Tensor& send, int to, const Tensor& receive, int from,
                             Site site = Site::current());
  void barrier(Site site = Site::current()) { do_barrier(site); }

  // Runs `collectives`, calls on the communicator that it is handed, without waiting for them. What
  // it captures (tensors, counts) it keeps alive until they are done; until then nobody reads their
  // results or writes to their inputs.
  virtual Pending start(std::function<void(Communicator&)> collectives) = 0;
  // The same, waited for; where nothing else was started a transport may do it on the caller.
  virtual void call(const std::function<void(Communicator&)>& collectives) {
    start(collectives).wait();
  }

  // Payload bytes this rank has sent to others so far; any thread.
  virtual int64_t bytes_sent() const = 0;

 protected:
  virtual std::unique_ptr<Communicator> do_split(int color, int key, const char* name,
                                                 const Site& site) = 0;
  virtual void do_all_reduce(Tensor& inout, ReduceOp op, const Site& site) = 0;
  virtual void do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                             const Site& site) = 0;
  virtual void do_reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                                 const Site& site) = 0;
  virtual void do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                             std::span<const int64_t> receive_counts, const Site& site) = 0;
  virtual void do_broadcast(Tensor& inout, int root, const Site& site) = 0;
  virtual void do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                               const Site& site) = 0;
  virtual void do_barrier(const Site& site) = 0;
};

}  // namespace weft
