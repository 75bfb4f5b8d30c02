#include "cluster/agent/coordinator_link.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>

namespace weft {
namespace asio = boost::asio;

CoordinatorLink::CoordinatorLink(asio::io_context& io, std::string host, int port,
                                 std::string secret, Logger log)
    : io_(io),
      way_(std::make_shared<Way>(io)),
      host_(std::move(host)),
      port_(port),
      secret_(std::move(secret)),
      log_(std::move(log)),
      timer_(io) {}

CoordinatorLink::~CoordinatorLink() {
  way_->end();
  *alive_ = false;
  if (channel_ != nullptr) channel_->close(Status(Code::kUnavailable, "the agent ends"));
  dialler_.join();
}

void CoordinatorLink::Way::post(std::function<void()> work) {
  const std::lock_guard lock(mutex);
  if (io != nullptr) asio::post(*io, std::move(work));
}

void CoordinatorLink::Way::end() {
  const std::lock_guard lock(mutex);
  io = nullptr;
}

void CoordinatorLink::start(Handlers handlers) {
  handlers_ = std::move(handlers);
  dial();
}

bool CoordinatorLink::send(const proto::NodeFrame& frame) {
  return channel_ != nullptr && channel_->send(frame);
}

void CoordinatorLink::dial() {
  asio::post(dialler_, [this, alive = alive_] {
    auto channel = connect(host_, port_, secret_);
    asio::post(io_, [this, alive, channel = std::move(channel)]() mutable {
      if (*alive) dialled(std::move(channel));
    });
  });
}

void CoordinatorLink::dialled(Result<std::shared_ptr<Channel>> channel) {
  if (!channel) {
    const std::string problem = channel.error().to_string();
    if (problem != last_problem_) log_.warn("{}; trying again", problem);
    last_problem_ = problem;
    dial_later();
    return;
  }
  failures_ = std::min(failures_, 1);
  last_problem_.clear();
  channel_ = *channel;
  const uint64_t generation = ++generation_;
  log_.info("connected to the coordinator at {}:{}", host_, port_);
  channel_->start({[this, way = way_, alive = alive_, generation](proto::NodeFrame frame) {
                     way->post([this, alive, generation, moved = std::move(frame)]() mutable {
                       if (*alive && generation == generation_ && channel_ != nullptr) {
                         handlers_.on_frame(std::move(moved));
                       }
                     });
                   },
                   [this, way = way_, alive = alive_, generation](const Status& why) {
                     way->post([this, alive, generation, why] {
                       if (*alive) lost(generation, why);
                     });
                   }});
  handlers_.on_connected();
}

void CoordinatorLink::lost(uint64_t generation, const Status& why) {
  if (generation != generation_ || channel_ == nullptr) return;
  log_.warn("the coordinator is away: {}", why.to_string());
  channel_ = nullptr;
  handlers_.on_lost();
  dial_later();
}

void CoordinatorLink::drop(const std::string& why) {
  if (channel_ == nullptr) return;
  const auto channel = channel_;
  lost(generation_, Status(Code::kUnavailable, why));
  channel->close(Status(Code::kUnavailable, why));
}

void CoordinatorLink::dial_later() {
  ++failures_;
  timer_.expires_after(std::chrono::milliseconds(100 << std::min(failures_, kFailuresMax)));
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) dial();
  });
}

}  // namespace weft
