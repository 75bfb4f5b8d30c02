#include "cluster/comm/watched_communicator.h"

#include <atomic>
#include <mutex>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "cluster/comm/arguments.h"
#include "cluster/comm/call_header.h"
#include "proto/base/status.h"

namespace weft::comm {
namespace {

// On the thread that does the work: where the rank's compute thread stood when it started it.
struct Started {
  const char* op = nullptr;
  int layer = -1;
};
thread_local const Started* started_from = nullptr;

class InStarted {
 public:
  explicit InStarted(const Started& from) : before_(std::exchange(started_from, &from)) {}
  ~InStarted() { started_from = before_; }
  InStarted(const InStarted&) = delete;
  InStarted& operator=(const InStarted&) = delete;

 private:
  const Started* const before_;
};

// Of a rank: what its communicators share.
struct Watch {
  Watch(Activity& told, WatchOptions wanted) : activity(told), options(wanted) {}
  Activity& activity;
  const std::unique_ptr<Allocator> allocator = make_caching_allocator();
  const WatchOptions options;
  std::mutex mutex;
  std::string mismatch;  // guarded by mutex; empty: none so far
};

std::vector<int64_t> gathered(Communicator& comm, Allocator& allocator,
                              const std::vector<int64_t>& mine) {
  const auto length = std::ssize(mine);
  const std::vector<int64_t> counts(static_cast<size_t>(comm.size()), length);
  const Tensor in = Tensor::from<int64_t>(allocator, {length}, mine);
  Tensor out = Tensor::empty(allocator, {length * comm.size()}, DType::kI64);
  comm.all_gather(in, out, counts);
  return out.to_vector<int64_t>();
}

class WatchedCommunicator final : public Communicator {
 public:
  WatchedCommunicator(std::unique_ptr<Communicator> inner, std::shared_ptr<Watch> watch,
                      std::shared_ptr<RankGroup> group)
      : watch_(std::move(watch)),
        group_(std::move(group)),
        beside_(inner->bytes_sent()),
        inner_(std::move(inner)) {
    watch_->activity.add_group(group_);
  }

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  int64_t bytes_sent() const override { return inner_->bytes_sent() - beside_; }

  Pending start(std::function<void(Communicator&)> collectives) override {
    throw_if_mismatched();
    const Started from = here();
    Pending pending = inner_->start([this, from, run = std::move(collectives)](Communicator&) {
      const InStarted inside(from);
      run(*this);
    });
    return std::move(pending).watched_by(watch_->activity);
  }

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key, const char* name,
                                         const Site& site) override {
    std::unique_ptr<Communicator> part;
    std::vector<int64_t> members;
    run(call_of("split", site), {}, [&] {
      part = inner_->split(color, key, name, site);
      const int64_t me = group_->ranks[static_cast<size_t>(rank())];
      members = gathered(*part, *watch_->allocator, {me});
    });
    auto group = std::make_shared<RankGroup>();
    group->axis = *name == '\0' ? "unnamed" : name;
    group->ranks.assign(members.begin(), members.end());
    return std::make_unique<WatchedCommunicator>(std::move(part), watch_, std::move(group));
  }
  void do_all_reduce(Tensor& inout, ReduceOp op, const Site& site) override {
    run(call_of("all_reduce", site, &inout),
        {.elements = inout.elements(), .detail = static_cast<int64_t>(op)},
        [&] { inner_->all_reduce(inout, op, site); });
  }
  void do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                     const Site& site) override {
    run(call_of("all_gather", site, &out),
        {.elements = out.elements(), .sends = {counts.begin(), counts.end()}},
        [&] { inner_->all_gather(in, out, counts, site); });
  }
  void do_reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                         const Site& site) override {
    run(call_of("reduce_scatter", site, &in),
        {.elements = in.elements(), .sends = {counts.begin(), counts.end()}},
        [&] { inner_->reduce_scatter(in, out, counts, site); });
  }
  void do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                     std::span<const int64_t> receive_counts, const Site& site) override {
    run(call_of("all_to_all", site, &in),
        {.exchange = true,
         .sends = {send_counts.begin(), send_counts.end()},
         .receives = {receive_counts.begin(), receive_counts.end()}},
        [&] { inner_->all_to_all(in, send_counts, out, receive_counts, site); });
  }
  void do_broadcast(Tensor& inout, int root, const Site& site) override {
    run(call_of("broadcast", site, &inout), {.elements = inout.elements(), .detail = root},
        [&] { inner_->broadcast(inout, root, site); });
  }
  void do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                       const Site& site) override {
    check_rank(*this, to);
    check_rank(*this, from);
    const std::vector<int64_t> nothing(static_cast<size_t>(size()), kNothing);
    CallTerms terms{.exchange = true, .sends = nothing, .receives = nothing};
    terms.sends[static_cast<size_t>(to)] = send.elements();
    terms.receives[static_cast<size_t>(from)] = receive.elements();
    run(call_of("send_receive", site, &send), std::move(terms),
        [&] { inner_->send_receive(send, to, receive, from, site); });
  }
  void do_barrier(const Site& site) override {
    run(call_of("barrier", site), {}, [&] { inner_->barrier(site); });
  }

 private:
  Started here() const {
    if (started_from != nullptr) return *started_from;
    return {watch_->activity.op(), watch_->activity.layer()};
  }

  CollectiveCall call_of(const char* name, const Site& site, const Tensor* tensor = nullptr) const {
    const Started from = here();
    CollectiveCall call{
        .name = name, .group = group_, .site = site, .op = from.op, .layer = from.layer};
    if (tensor == nullptr) return call;
    call.elements = tensor->elements();
    call.bytes = static_cast<int64_t>(tensor->bytes());
    call.dtype = dtype_name(tensor->dtype()).data();
    return call;
  }

  template <typename Collective>
  void run(CollectiveCall call, CallTerms terms, const Collective& collective) {
    const auto work = [&] {
      throw_if_mismatched();
      call.number = ++group_->calls;
      const Activity::Collective now(watch_->activity, call);
      if (watch_->options.compare && size() > 1) compare(terms, call);
      collective();
    };
    if (started_from != nullptr) return work();
    const Started from = here();
    const Activity::Wait wait(&watch_->activity);
    inner_->call([&](Communicator&) {
      const InStarted inside(from);
      work();
    });
  }

  void compare(const CallTerms& terms, const CollectiveCall& call) {
    const int64_t before = inner_->bytes_sent();
    const auto headers = gathered(*inner_, *watch_->allocator, pack_header(terms, call, size()));
    beside_ += inner_->bytes_sent() - before;
    const std::string wrong = mismatch(headers, *group_);
    if (wrong.empty()) return;
    {
      const std::lock_guard lock(watch_->mutex);
      watch_->mismatch = wrong;
    }
    throw_if_mismatched();
  }

  void throw_if_mismatched() const {
    if (!watch_->options.compare) return;
    const std::lock_guard lock(watch_->mutex);
    if (!watch_->mismatch.empty()) throw StatusError(Status(Code::kInternal, watch_->mismatch));
  }

  const std::shared_ptr<Watch> watch_;
  const std::shared_ptr<RankGroup> group_;
  std::atomic<int64_t> beside_;  // bytes sent that are no payload
  // The last member: what it finishes when it goes may still use the others.
  const std::unique_ptr<Communicator> inner_;
};

}  // namespace

std::unique_ptr<Communicator> watched(std::unique_ptr<Communicator> world, Activity& activity,
                                      WatchOptions options) {
  auto group = std::make_shared<RankGroup>();
  group->axis = "world";
  group->ranks.resize(static_cast<size_t>(world->size()));
  std::iota(group->ranks.begin(), group->ranks.end(), 0);
  return std::make_unique<WatchedCommunicator>(
      std::move(world), std::make_shared<Watch>(activity, options), std::move(group));
}

}  // namespace weft::comm
