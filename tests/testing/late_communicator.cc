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

// A transport that is told before it runs a collective.
class ToldCommunicator : public Communicator {
 public:
  explicit ToldCommunicator(std::unique_ptr<Communicator> inner) : inner_(std::move(inner)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  int64_t bytes_sent() const override { return inner_->bytes_sent(); }

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key, const char* name,
                                         const Site& site) override {
    return like_this(in_turn().split(color, key, name, site));
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

  virtual std::unique_ptr<Communicator> like_this(std::unique_ptr<Communicator> inner) = 0;
  virtual void before_collective() = 0;

  const std::unique_ptr<Communicator> inner_;

 private:
  Communicator& in_turn() {
    before_collective();
    return *inner_;
  }
};

class LateCommunicator final : public ToldCommunicator {
 public:
  LateCommunicator(std::unique_ptr<Communicator> inner, std::shared_ptr<Backlog> backlog)
      : ToldCommunicator(std::move(inner)), backlog_(std::move(backlog)) {}
  ~LateCommunicator() override {
    (void)failure_of([&] { backlog_->do_all(); });  // whoever waited for it was told
  }

  Pending start(std::function<void(Communicator&)> collectives) override {
    return Pending(backlog_->add(
        [this, run = std::move(collectives)]() mutable { inner_->start(std::move(run)).wait(); }));
  }

 private:
  std::unique_ptr<Communicator> like_this(std::unique_ptr<Communicator> inner) override {
    return std::make_unique<LateCommunicator>(std::move(inner), backlog_);
  }
  void before_collective() override { backlog_->do_all(); }

  const std::shared_ptr<Backlog> backlog_;
};

class PromptCommunicator final : public ToldCommunicator {
 public:
  using ToldCommunicator::ToldCommunicator;

  Pending start(std::function<void(Communicator&)> collectives) override {
    const auto begun = std::make_shared<Begun>();
    Pending pending = inner_->start([begun, run = std::move(collectives)](Communicator& transport) {
      started = begun.get();
      const Status outcome = failure_of([&] { run(transport); });
      begun->tell();  // also where nothing is sent
      started = nullptr;
      if (!outcome.ok()) throw StatusError(outcome);
    });
    begun->said.get_future().wait();
    return pending;
  }

 private:
  struct Begun {
    std::promise<void> said;
    bool told = false;
    void tell() {
      if (!std::exchange(told, true)) said.set_value();
    }
  };
  static thread_local Begun* started;  // that runs on this thread

  std::unique_ptr<Communicator> like_this(std::unique_ptr<Communicator> inner) override {
    return std::make_unique<PromptCommunicator>(std::move(inner));
  }
  void before_collective() override {
    if (started != nullptr) started->tell();
  }
};

thread_local PromptCommunicator::Begun* PromptCommunicator::started = nullptr;

}  // namespace

std::unique_ptr<Communicator> late(std::unique_ptr<Communicator> world) {
  return std::make_unique<LateCommunicator>(std::move(world), std::make_shared<Backlog>());
}

std::unique_ptr<Communicator> prompt(std::unique_ptr<Communicator> world) {
  return std::make_unique<PromptCommunicator>(std::move(world));
}

}  // namespace weft::testing
