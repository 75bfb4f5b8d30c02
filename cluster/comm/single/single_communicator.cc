#include "cluster/comm/single/single_communicator.h"

#include <cstring>
#include <exception>

#include "cluster/comm/arguments.h"
#include "cluster/comm/reduce_elements.h"

namespace weft::comm {
namespace {

void copy(const Tensor& from, Tensor& to) {
  WEFT_CHECK(from.bytes() == to.bytes(), "{} bytes into {}", from.bytes(), to.bytes());
  if (from.bytes() != 0) std::memmove(to.raw(), from.raw(), from.bytes());
}

class SingleCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Communicator> split(int, int) override { return single_world(); }

  void all_reduce(Tensor& inout, ReduceOp) override {
    check_contiguous(inout);
    check_reducible(inout.dtype());
  }
  void all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts) override {
    check_parts(*this, in, out, counts);
    copy(in, out);
  }
  void reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts) override {
    check_parts(*this, out, in, counts);
    check_reducible(in.dtype());
    copy(in, out);
  }
  void all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                  std::span<const int64_t> receive_counts) override {
    check_exchange(*this, in, send_counts, out, receive_counts);
    copy(in, out);
  }
  void broadcast(Tensor& inout, int root) override {
    check_contiguous(inout);
    check_rank(*this, root);
  }
  void send_receive(const Tensor& send, int to, Tensor& receive, int from) override {
    check_contiguous(send);
    check_contiguous(receive);
    check_rank(*this, to);
    check_rank(*this, from);
    copy(send, receive);
  }
  void barrier() override {}
  Pending start(std::function<void(Communicator&)> collectives) override {
    std::promise<void> outcome;
    try {
      collectives(*this);
      outcome.set_value();
    } catch (...) {
      outcome.set_exception(std::current_exception());
    }
    return Pending(outcome.get_future());
  }
  int64_t bytes_sent() const override { return 0; }
};

}  // namespace

std::unique_ptr<Communicator> single_world() { return std::make_unique<SingleCommunicator>(); }

}  // namespace weft::comm
