// The communicator over MPI. Reductions are our own, over point-to-point messages, so that their
// order is known: rank r sums its part of the elements as r, r-1, r-2, ... (modulo size), or, for
// few bytes, every rank sums everything in rank order. Nothing else decides the order.
//
// What is started runs on the rank's communication thread, what is called on the caller where
// nothing that was started is left to do: a piece of work at a time calls MPI.
//
// Thread safety and errors: as mpi_world.h. Ownership: owns its MPI_Comm, shares the thread.
#pragma once

#include <mpi.h>

#include <memory>
#include <vector>

#include "cluster/comm/communication_thread.h"
#include "cluster/comm/mpi/transfer.h"
#include "worker/parallel/communicator.h"

namespace weft::comm {

class MpiCommunicator final : public Communicator {
 public:
  // Takes ownership of `comm`, which returns errors (MPI_ERRORS_RETURN). Called on `thread`.
  MpiCommunicator(MPI_Comm comm, std::shared_ptr<CommunicationThread> thread);
  ~MpiCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
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
  void do_barrier(const Site& site) override;
  Pending start(std::function<void(Communicator&)> collectives) override;
  void call(const std::function<void(Communicator&)>& collectives) override;
  int64_t bytes_sent() const override { return transfer_.bytes_sent(); }

 private:
  // The rank `shift` places on (or, negative, back) around the ring.
  int neighbour(int shift) const { return (rank_ + shift + size_) % size_; }
  // Few bytes: every rank gets everybody's and reduces in rank order; one latency.
  void all_reduce_small(std::byte* inout, size_t bytes, DType dtype, ReduceOp op);
  // into (this rank's part, already holding its own term) gets the other ranks' terms.
  void sum_parts(std::byte* whole, std::span<const size_t> part_bytes, std::byte* into, DType dtype,
                 ReduceOp op);
  // whole holds this rank's part in its place; afterwards everybody's.
  void gather_parts(std::byte* whole, std::span<const size_t> part_bytes);

  MPI_Comm comm_;
  const std::shared_ptr<CommunicationThread> thread_;
  int rank_ = 0, size_ = 1;
  Transfer transfer_;
  std::vector<std::byte> small_;  // one message a rank
};

}  // namespace weft::comm
