// The ranks of one axis and the collectives among them. Implemented in cluster/comm: single (size
// one), threads (ranks of one process), mpi.
//
// A call returns when its collective is done. start() runs it beside the caller, on the rank's one
// communication thread, in the order of all starts and calls of the rank: what overlaps is the
// rank's own work, never two collectives of it.
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
#include <span>

#include "kernels/tensor/tensor.h"
#include "worker/parallel/pending.h"

namespace weft {

enum class ReduceOp { kSum, kMax, kMin };

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Ranks of equal color, ordered by key, then by rank. A collective.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  virtual void all_reduce(Tensor& inout, ReduceOp op) = 0;  // but kI32, kU8
  // out is the concatenation, in rank order, of each rank's `in`; counts[r] elements come from rank
  // r (in has counts[rank()], out has their sum).
  virtual void all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts) = 0;
  // in (sum of counts) is summed over ranks; rank r gets its part of counts[r] elements in out.
  virtual void reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts) = 0;
  // Part r of `in` (send_counts[r] elements) goes to rank r; out holds what came, in rank order.
  virtual void all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                          std::span<const int64_t> receive_counts) = 0;
  virtual void broadcast(Tensor& inout, int root) = 0;
  // Sends to `to` while receiving from `from` (a ring shift); sizes may differ.
  virtual void send_receive(const Tensor& send, int to, Tensor& receive, int from) = 0;
  // The same, started.
  Pending start_send_receive(const Tensor& send, int to, const Tensor& receive, int from);
  virtual void barrier() = 0;

  // Runs `collectives`, calls on the communicator that it is handed, without waiting for them. What
  // it captures (tensors, counts) it keeps alive until they are done; until then nobody reads their
  // results or writes to their inputs.
  virtual Pending start(std::function<void(Communicator&)> collectives) = 0;

  // Payload bytes this rank has sent to others so far; any thread.
  virtual int64_t bytes_sent() const = 0;
};

}  // namespace weft
