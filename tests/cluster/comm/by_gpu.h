// For suites whose tensors lie on the host: every call goes by way of the GPU's memory.
//
// Thread safety: as Communicator. Ownership: owns the communicator of the GPU's tensors; the
// allocator outlives it.
#pragma once

#include <memory>

#include "kernels/tensor/stream.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/communicator.h"

namespace weft::testing {

class ByGpu final : public Communicator {
 public:
  ByGpu(std::unique_ptr<Communicator> nccl, Allocator& gpu) : nccl_(std::move(nccl)), gpu_(gpu) {}
  int rank() const override { return nccl_->rank(); }
  int size() const override { return nccl_->size(); }
  std::unique_ptr<Communicator> do_split(int color, int key, const char* name,
                                         const Site& site) override {
    return std::make_unique<ByGpu>(nccl_->split(color, key, name, site), gpu_);
  }
  void do_all_reduce(Tensor& inout, ReduceOp op, const Site&) override {
    Tensor there = to_allocator(inout, gpu_);
    nccl_->all_reduce(there, op);
    bring(there, inout);
  }
  void do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                     const Site&) override {
    Tensor there = to_allocator(out, gpu_);
    nccl_->all_gather(to_allocator(in, gpu_), there, counts);
    bring(there, out);
  }
  void do_reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                         const Site&) override {
    Tensor there = to_allocator(out, gpu_);
    nccl_->reduce_scatter(to_allocator(in, gpu_), there, counts);
    bring(there, out);
  }
  void do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                     std::span<const int64_t> receive_counts, const Site&) override {
    Tensor there = to_allocator(out, gpu_);
    nccl_->all_to_all(to_allocator(in, gpu_), send_counts, there, receive_counts);
    bring(there, out);
  }
  void do_broadcast(Tensor& inout, int root, const Site&) override {
    Tensor there = to_allocator(inout, gpu_);
    nccl_->broadcast(there, root);
    bring(there, inout);
  }
  void do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                       const Site&) override {
    Tensor there = to_allocator(receive, gpu_);
    nccl_->send_receive(to_allocator(send, gpu_), to, there, from);
    bring(there, receive);
  }
  void do_barrier(const Site&) override { nccl_->barrier(); }
  Pending start(std::function<void(Communicator&)> collectives) override {
    return nccl_->start([this, collectives](Communicator&) { collectives(*this); });
  }
  int64_t bytes_sent() const override { return nccl_->bytes_sent(); }

 private:
  void bring(const Tensor& from, Tensor& to) {
    if (to.bytes() > 0) gpu_.stream()->download(to.raw(), from.raw(), to.bytes());
  }
  const std::unique_ptr<Communicator> nccl_;
  Allocator& gpu_;
};

}  // namespace weft::testing
