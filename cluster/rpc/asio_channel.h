// A Channel over one TLS stream. Internal to cluster/rpc.
//
// Frame: 4 bytes big-endian length, then that many bytes of a serialized NodeFrame.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "cluster/rpc/rpc.h"

namespace weft {

using TlsStream = boost::asio::ssl::stream<boost::asio::ip::tcp::socket>;

// All members but queued_ belong to the io thread.
class AsioChannel final : public Channel, public std::enable_shared_from_this<AsioChannel> {
 public:
  // `keep_alive` is held as long as the channel lives: a dialled channel's io thread.
  AsioChannel(TlsStream stream, std::string peer, std::shared_ptr<void> keep_alive);
  void start(Handlers handlers) override;
  bool send(const proto::NodeFrame& frame) override;
  void close(Status why) override;
  size_t queued_bytes() const override { return queued_.load(); }
  std::string peer() const override { return peer_; }

 private:
  void read_header();
  void read_body(uint32_t length);
  void write_next();
  void leave(Status why);
  void shut(Status why);

  std::shared_ptr<void> keep_alive_;
  TlsStream stream_;
  const std::string peer_;
  Handlers handlers_;
  std::array<unsigned char, 4> header_{};
  std::string body_;
  std::deque<std::string> outgoing_;
  bool writing_ = false;
  bool shut_ = false;
  std::optional<Status> leaving_;
  boost::asio::steady_timer closing_timer_;
  std::atomic<bool> closed_{false};
  std::atomic<size_t> queued_{0};
};

}  // namespace weft
