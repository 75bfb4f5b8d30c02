#include "cluster/comm/single/single_communicator.h"

#include <array>
#include <cstring>

#include "cluster/comm/arguments.h"
#include "cluster/comm/reduce_elements.h"
#include "kernels/tensor/stream.h"

namespace weft::comm {
namespace {

void copy(const Tensor& from, Tensor& to) {
  WEFT_CHECK(from.bytes() == to.bytes(), "{} bytes into {}", from.bytes(), to.bytes());
  if (from.bytes() == 0) return;
  const std::array<int64_t, 1> step{1};
  const Shape flat{from.elements()};
  if (Stream* stream = to.allocator().stream()) {
    stream->copy(from.view(flat, step, 0), to.view(flat, step, 0));
  } else {
    std::memmove(to.raw(), from.raw(), from.bytes());
  }
}

class SingleCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Communicator> do_split(int, int, const char*, const Site&) override {
    return single_world();
  }

  void do_all_reduce(Tensor& inout, ReduceOp, const Site&) override {
    check_contiguous(inout);
    check_reducible(inout.dtype());
  }
  void do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                     const Site&) override {
    check_parts(*this, in, out, counts);
    copy(in, out);
  }
  void do_reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                         const Site&) override {
    check_parts(*this, out, in, counts);
    check_reducible(in.dtype());
    copy(in, out);
  }
  void do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                     std::span<const int64_t> receive_counts, const Site&) override {
    check_exchange(*this, in, send_counts, out, receive_counts);
    copy(in, out);
  }
  void do_broadcast(Tensor& inout, int root, const Site&) override {
    check_contiguous(inout);
    check_rank(*this, root);
  }
  void do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                       const Site&) override {
    check_contiguous(send);
    check_contiguous(receive);
    check_rank(*this, to);
    check_rank(*this, from);
    copy(send, receive);
  }
  void do_barrier(const Site&) override {}
  Pending start(std::function<void(Communicator&)> collectives) override {
    return done_at_once(*this, collectives);
  }
  int64_t bytes_sent() const override { return 0; }
};

}  // namespace

std::unique_ptr<Communicator> single_world() { return std::make_unique<SingleCommunicator>(); }

}  // namespace weft::comm
