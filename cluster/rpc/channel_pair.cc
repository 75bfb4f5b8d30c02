// Two channel ends in memory, for tests: one thread delivers both ways.
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "cluster/rpc/rpc.h"

namespace weft {
namespace {

struct Wire;

class End final : public Channel {
 public:
  End(std::shared_ptr<Wire> wire, int side) : wire_(std::move(wire)), side_(side) {}
  ~End() override;
  void start(Handlers handlers) override;
  bool send(const proto::NodeFrame& frame) override;
  void close(Status why) override;
  size_t queued_bytes() const override { return 0; }
  std::string peer() const override { return side_ == 0 ? "memory:1" : "memory:0"; }

 private:
  const std::shared_ptr<Wire> wire_;
  const int side_;
};

// Invariant: frames_[s] are on their way to side s.
struct Wire {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<proto::NodeFrame> frames[2];
  std::optional<Channel::Handlers> handlers[2];
  bool told_close[2] = {false, false};
  bool closed = false;
  int ends = 2;
  Status why;
};

// Ends when both sides have heard of the close, or nobody holds an end any more.
void deliver(const std::shared_ptr<Wire>& wire) {
  std::unique_lock lock(wire->mutex);
  while (wire->ends > 0) {
    bool idle = true;
    for (int side = 0; side < 2; ++side) {
      if (!wire->handlers[side] || wire->told_close[side]) continue;
      const Channel::Handlers handlers = *wire->handlers[side];
      if (!wire->closed && !wire->frames[side].empty()) {
        proto::NodeFrame frame = std::move(wire->frames[side].front());
        wire->frames[side].pop_front();
        lock.unlock();
        handlers.on_frame(std::move(frame));
        lock.lock();
        idle = false;
      } else if (wire->closed) {
        wire->told_close[side] = true;
        wire->handlers[side].reset();
        const Status why = wire->why;
        lock.unlock();
        handlers.on_close(why);
        lock.lock();
        idle = false;
      }
    }
    if (idle) wire->changed.wait(lock);
  }
}

End::~End() {
  close(Status(Code::kUnavailable, "the other end is gone"));
  const std::lock_guard lock(wire_->mutex);
  --wire_->ends;
  wire_->changed.notify_all();
}

void End::start(Handlers handlers) {
  const std::lock_guard lock(wire_->mutex);
  wire_->handlers[side_] = std::move(handlers);
  wire_->changed.notify_all();
}

bool End::send(const proto::NodeFrame& frame) {
  const std::lock_guard lock(wire_->mutex);
  if (wire_->closed) return false;
  wire_->frames[1 - side_].push_back(frame);
  wire_->changed.notify_all();
  return true;
}

void End::close(Status why) {
  const std::lock_guard lock(wire_->mutex);
  if (wire_->closed) return;
  wire_->closed = true;
  wire_->why = std::move(why);
  wire_->changed.notify_all();
}

}  // namespace

std::pair<std::shared_ptr<Channel>, std::shared_ptr<Channel>> make_channel_pair() {
  auto wire = std::make_shared<Wire>();
  std::thread([wire] { deliver(wire); }).detach();
  return {std::make_shared<End>(wire, 0), std::make_shared<End>(wire, 1)};
}

}  // namespace weft
