// The agent's line to the coordinator: dialled again for ever when it is lost.
//
// Thread safety: the io_context's one thread; dialling blocks a thread of its own. Ownership: the
// agent owns it. Invariants: 1. handlers are called on the io_context, never for a channel that is
// gone.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "cluster/rpc/rpc.h"
#include "proto/base/log.h"

namespace weft {

class CoordinatorLink {
 public:
  struct Handlers {
    std::function<void()> on_connected;
    std::function<void(proto::NodeFrame)> on_frame;
    std::function<void()> on_lost;
  };
  CoordinatorLink(boost::asio::io_context& io, std::string host, int port, std::string secret,
                  Logger log);
  ~CoordinatorLink();
  void start(Handlers handlers);
  bool send(const proto::NodeFrame& frame);  // false: not connected; the frame is dropped
  bool connected() const { return channel_ != nullptr; }
  size_t queued_bytes() const { return channel_ == nullptr ? 0 : channel_->queued_bytes(); }
  // Gives the line up (nothing was heard for long) and dials anew.
  void drop(const std::string& why);
  // The coordinator does not want this node: dials less often from now on.
  void refused() { failures_ = kFailuresMax; }

 private:
  static constexpr int kFailuresMax = 5;
  // The agent's io_context to a channel's thread, which may still run when the agent ends.
  struct Way {
    explicit Way(boost::asio::io_context& to) : io(&to) {}
    void post(std::function<void()> work);
    void end();  // nothing is posted from then on
    std::mutex mutex;
    boost::asio::io_context* io;
  };
  void dial();
  void dialled(Result<std::shared_ptr<Channel>> channel);
  void lost(uint64_t generation, const Status& why);
  void dial_later();

  boost::asio::io_context& io_;
  const std::shared_ptr<Way> way_;
  const std::string host_;
  const int port_;
  const std::string secret_;
  const Logger log_;
  Handlers handlers_;
  std::shared_ptr<Channel> channel_;
  uint64_t generation_ = 0;
  int failures_ = 0;
  std::string last_problem_;
  boost::asio::steady_timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for handlers posted by others
  boost::asio::thread_pool dialler_{1};
};

}  // namespace weft
