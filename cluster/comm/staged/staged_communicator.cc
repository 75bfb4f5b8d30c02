#include "cluster/comm/staged/staged_communicator.h"

#include <utility>

#include "cluster/comm/arguments.h"
#include "cluster/comm/single/single_communicator.h"
#include "kernels/tensor/transfer.h"

namespace weft::comm {
namespace {

class StagedCommunicator final : public Communicator {
 public:
  StagedCommunicator(std::unique_ptr<Communicator> transport, std::shared_ptr<Allocator> pinned)
      : pinned_(std::move(pinned)), transport_(std::move(transport)) {}

  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }
  std::unique_ptr<Communicator> do_split(int color, int key, const char* name,
                                         const Site& site) override {
    auto part = transport_->split(color, key, name, site);
    if (part->size() == 1) return single_world();
    return make_staged_communicator(std::move(part), pinned_);
  }
  void do_all_reduce(Tensor& inout, ReduceOp op, const Site& site) override {
    Tensor here = staged(inout);
    transport_->all_reduce(here, op, site);
    take_back(here, inout);
  }
  void do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                     const Site& site) override {
    Tensor here = room_for(out);
    transport_->all_gather(staged(in), here, counts, site);
    take_back(here, out);
  }
  void do_reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                         const Site& site) override {
    Tensor here = room_for(out);
    transport_->reduce_scatter(staged(in), here, counts, site);
    take_back(here, out);
  }
  void do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                     std::span<const int64_t> receive_counts, const Site& site) override {
    Tensor here = room_for(out);
    transport_->all_to_all(staged(in), send_counts, here, receive_counts, site);
    take_back(here, out);
  }
  void do_broadcast(Tensor& inout, int root, const Site& site) override {
    Tensor here = staged(inout);
    transport_->broadcast(here, root, site);
    if (rank() != root) take_back(here, inout);
  }
  void do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                       const Site& site) override {
    Tensor here = room_for(receive);
    transport_->send_receive(staged(send), to, here, from, site);
    take_back(here, receive);
  }
  void do_barrier(const Site& site) override { transport_->barrier(site); }
  // The tensors' stream is the rank's own, so nothing runs beside it.
  Pending start(std::function<void(Communicator&)> collectives) override {
    return done_at_once(*this, collectives);
  }
  int64_t bytes_sent() const override { return transport_->bytes_sent(); }

 private:
  Tensor staged(const Tensor& x) {
    check_contiguous(x);
    return to_allocator(x, *pinned_);
  }
  Tensor room_for(const Tensor& x) {
    check_contiguous(x);
    return x.device().is_cpu() ? x : Tensor::empty(*pinned_, x.shape(), x.dtype());
  }
  static void take_back(const Tensor& here, const Tensor& x) {
    if (!x.device().is_cpu()) upload(x, here.raw());
  }

  const std::shared_ptr<Allocator> pinned_;
  const std::unique_ptr<Communicator> transport_;
};

}  // namespace

std::unique_ptr<Communicator> make_staged_communicator(std::unique_ptr<Communicator> transport,
                                                       std::shared_ptr<Allocator> pinned) {
  return std::make_unique<StagedCommunicator>(std::move(transport), std::move(pinned));
}

}  // namespace weft::comm
