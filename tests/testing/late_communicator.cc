#include "tests/testing/late_communicator.h"

#include <deque>
#include <utility>

namespace weft::testing {
namespace {

// Of a rank: what its communicators have started, in order.
class Backlog {
 public:
  std::future<Status> add(std::function<void()> work) {
    const int64_t number = ++started_;
    works_.push_back(std::move(work));
    return std::async(std::launch::deferred, [this, number] { return done_to(number); });
  }
  void do_all() {
    if (const Status outcome = done_to(started_); !outcome.ok()) throw StatusError(outcome);
  }

 private:
  // Does what is left of the first `number`; the failure of one is the failure of all after it.
  Status done_to(int64_t number) {
    while (done_ < number && failed_.ok()) {
      const std::function<void()> work = std::move(works_.front());
      works_.pop_front();
      ++done_;
      failed_ = failure_of(work);
    }
    return failed_;
  }

  std::deque<std::function<void()>> works_;
  int64_t started_ = 0, done_ = 0;
  Status failed_;
};

class LateCommunicator final : public Communicator {
 public:
  LateCommunicator(std::unique_ptr<Communicator> inner, std::shared_ptr<Backlog> backlog)
      : inner_(std::move(inner)), backlog_(std::move(backlog)) {}
  ~LateCommunicator() override {
    (void)failure_of([&] { backlog_->do_all(); });  // whoever waited for it was told
  }

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  int64_t bytes_sent() const override { return inner_->bytes_sent(); }

  Pending start(std::function<void(Communicator&)> collectives) override {
    return Pending(backlog_->add(
        [this, run = std::move(collectives)]() mutable { inner_->start(std::move(run)).wait(); }));
  }

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key, const char* name,
                                         const Site& site) override {
    return std::make_unique<LateCommunicator>(in_turn().split(color, key, name, site), backlog_);
  }
  void do_all_reduce(Tensor& inout, ReduceOp op, const Site& site) override {
    in_turn().all_reduce(inout, op, site);
  }
  void do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                     const Site& site) override {
    in_turn().all_gather(in, out, counts, site);
  }
  void do_reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                         const Site& site) override {
    in_turn().reduce_scatter(in, out, counts, site);
  }
  void do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                     std::span<const int64_t> receive_counts, const Site& site) override {
    in_turn().all_to_all(in, send_counts, out, receive_counts, site);
  }
  void do_broadcast(Tensor& inout, int root, const Site& site) override {
    in_turn().broadcast(inout, root, site);
  }
  void do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                       const Site& site) override {
    in_turn().send_receive(send, to, receive, from, site);
  }
  void do_barrier(const Site& site) override { in_turn().barrier(site); }

 private:
  // The transport, once everything started before is done.
  Communicator& in_turn() {
    backlog_->do_all();
    return *inner_;
  }

  const std::unique_ptr<Communicator> inner_;
  const std::shared_ptr<Backlog> backlog_;
};

}  // namespace

std::unique_ptr<Communicator> late(std::unique_ptr<Communicator> world) {
  return std::make_unique<LateCommunicator>(std::move(world), std::make_shared<Backlog>());
}

}  // namespace weft::testing
