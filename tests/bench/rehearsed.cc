#include "tests/bench/rehearsed.h"

namespace weft::bench {
namespace {

using Counts = std::vector<int64_t>;

Counts copy_of(std::span<const int64_t> counts) { return {counts.begin(), counts.end()}; }

// Every call either goes to the wrapped communicator or is left out; recorded, it is repeated with
// tensors of the same shapes.
class Rehearsed final : public Communicator {
 public:
  Rehearsed(std::shared_ptr<Communicator> inner, std::shared_ptr<Rehearsal> rehearsal)
      : inner_(std::move(inner)), rehearsal_(std::move(rehearsal)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::unique_ptr<Communicator> do_split(int color, int key, const char* name,
                                         const Site& site) override {
    return std::make_unique<Rehearsed>(inner_->split(color, key, name, site), rehearsal_);
  }

  void do_all_reduce(Tensor& inout, ReduceOp op, const Site& site) override {
    if (rehearsal_->transfers) inner_->all_reduce(inout, op, site);
    record([inner = inner_, made = like(inout), op](Allocator& allocator) {
      Tensor tensor = made(allocator);
      inner->all_reduce(tensor, op);
    });
  }
  void do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                     const Site& site) override {
    if (rehearsal_->transfers) {
      inner_->all_gather(in, out, counts, site);
    } else if (in.dtype() == DType::kI64 && in.elements() > 0) {
      gather_own(in, out);
    }
    record([inner = inner_, in = like(in), out = like(out),
            counts = copy_of(counts)](Allocator& allocator) {
      Tensor to = out(allocator);
      inner->all_gather(in(allocator), to, counts);
    });
  }
  void do_reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                         const Site& site) override {
    if (rehearsal_->transfers) inner_->reduce_scatter(in, out, counts, site);
    record([inner = inner_, in = like(in), out = like(out),
            counts = copy_of(counts)](Allocator& allocator) {
      Tensor to = out(allocator);
      inner->reduce_scatter(in(allocator), to, counts);
    });
  }
  void do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                     std::span<const int64_t> receive_counts, const Site& site) override {
    if (rehearsal_->transfers) inner_->all_to_all(in, send_counts, out, receive_counts, site);
    record([inner = inner_, in = like(in), out = like(out), sent = copy_of(send_counts),
            received = copy_of(receive_counts)](Allocator& allocator) {
      Tensor to = out(allocator);
      inner->all_to_all(in(allocator), sent, to, received);
    });
  }
  void do_broadcast(Tensor& inout, int root, const Site& site) override {
    if (rehearsal_->transfers) inner_->broadcast(inout, root, site);
    record([inner = inner_, made = like(inout), root](Allocator& allocator) {
      Tensor tensor = made(allocator);
      inner->broadcast(tensor, root);
    });
  }
  void do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                       const Site& site) override {
    if (rehearsal_->transfers) inner_->send_receive(send, to, receive, from, site);
    record([inner = inner_, out = like(send), to, in = like(receive), from](Allocator& allocator) {
      Tensor received = in(allocator);
      inner->send_receive(out(allocator), to, received, from);
    });
  }
  void do_barrier(const Site& site) override {
    if (rehearsal_->transfers) inner_->barrier(site);
    record([inner = inner_](Allocator&) { inner->barrier(); });
  }
  Pending start(std::function<void(Communicator&)> collectives) override {
    return inner_->start([inner = inner_, rehearsal = rehearsal_,
                          collectives = std::move(collectives)](Communicator&) {
      Rehearsed own(inner, rehearsal);
      collectives(own);
    });
  }
  int64_t bytes_sent() const override { return inner_->bytes_sent(); }

 private:
  // Numbers that sizes and places follow from are as if every rank had this one's.
  static void gather_own(const Tensor& in, const Tensor& out) {
    const std::span own(in.data<int64_t>(), static_cast<size_t>(in.elements()));
    for (int64_t i = 0; i < out.elements(); ++i) {
      out.data<int64_t>()[i] = own[static_cast<size_t>(i) % own.size()];
    }
  }
  static std::function<Tensor(Allocator&)> like(const Tensor& tensor) {
    return [shape = tensor.shape(), dtype = tensor.dtype()](Allocator& allocator) {
      return Tensor::empty(allocator, shape, dtype);
    };
  }
  // Once the call is done, so that the log has the order in which the rank's calls were made on its
  // communication thread.
  void record(std::function<void(Allocator&)> call) {
    if (!rehearsal_->records) return;
    const std::lock_guard lock(rehearsal_->mutex);
    rehearsal_->log.push_back(std::move(call));
  }

  const std::shared_ptr<Communicator> inner_;
  const std::shared_ptr<Rehearsal> rehearsal_;
};

}  // namespace

std::unique_ptr<Communicator> rehearsed(std::unique_ptr<Communicator> inner,
                                        std::shared_ptr<Rehearsal> rehearsal) {
  return std::make_unique<Rehearsed>(std::move(inner), std::move(rehearsal));
}

}  // namespace weft::bench
