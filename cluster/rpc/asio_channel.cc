#include "cluster/rpc/asio_channel.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

namespace weft {
namespace asio = boost::asio;

namespace {
constexpr auto kCloseTime = std::chrono::seconds(2);
}

AsioChannel::AsioChannel(TlsStream stream, std::string peer, std::shared_ptr<void> keep_alive)
    : keep_alive_(std::move(keep_alive)), stream_(std::move(stream)), peer_(std::move(peer)),
      closing_timer_(stream_.get_executor()) {}

void AsioChannel::start(Handlers handlers) {
  asio::post(stream_.get_executor(),
             [self = shared_from_this(), handlers = std::move(handlers)]() mutable {
               self->handlers_ = std::move(handlers);
               if (self->shut_) {
                 self->handlers_.on_close(Status(Code::kUnavailable, "closed before its start"));
                 self->handlers_ = {};
                 return;
               }
               self->read_header();
             });
}

bool AsioChannel::send(const proto::NodeFrame& frame) {
  if (closed_.load()) return false;
  const size_t size = frame.ByteSizeLong();
  if (size > kFrameBytesMax) {
    close(Status(Code::kResourceExhausted, "a frame of " + std::to_string(size) + " bytes"));
    return false;
  }
  std::string bytes(4, '\0');
  for (int i = 0; i < 4; ++i) {
    bytes[static_cast<size_t>(i)] = static_cast<char>((size >> (24 - 8 * i)) & 0xff);
  }
  frame.AppendToString(&bytes);
  queued_.fetch_add(bytes.size());
  asio::post(stream_.get_executor(),
             [self = shared_from_this(), bytes = std::move(bytes)]() mutable {
               if (self->shut_) return;
               self->outgoing_.push_back(std::move(bytes));
               if (!self->writing_) self->write_next();
             });
  return true;
}

void AsioChannel::close(Status why) {
  if (closed_.exchange(true)) return;
  asio::post(stream_.get_executor(),
             [self = shared_from_this(), why = std::move(why)] { self->leave(why); });
}

// What is queued still goes out, but for a peer that does not read it.
void AsioChannel::leave(Status why) {
  if (shut_) return;
  if (!writing_) return shut(std::move(why));
  leaving_ = std::move(why);
  closing_timer_.expires_after(kCloseTime);
  closing_timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (!error) self->shut(*self->leaving_);
  });
}

void AsioChannel::write_next() {
  writing_ = true;
  asio::async_write(stream_, asio::buffer(outgoing_.front()),
                    [self = shared_from_this()](const boost::system::error_code& error, size_t) {
                      self->writing_ = false;
                      if (self->shut_) return;
                      self->queued_.fetch_sub(self->outgoing_.front().size());
                      self->outgoing_.pop_front();
                      if (error) {
                        self->shut(Status(Code::kUnavailable, "sending: " + error.message()));
                      } else if (!self->outgoing_.empty()) {
                        self->write_next();
                      } else if (self->leaving_) {
                        self->shut(*self->leaving_);
                      }
                    });
}

void AsioChannel::read_header() {
  asio::async_read(
      stream_, asio::buffer(header_),
      [self = shared_from_this()](const boost::system::error_code& error, size_t) {
        if (self->shut_) return;
        if (error) {
          self->shut(Status(Code::kUnavailable, "the peer is gone: " + error.message()));
          return;
        }
        uint32_t length = 0;
        for (const unsigned char byte : self->header_) length = length << 8 | byte;
        if (length > kFrameBytesMax) {
          self->shut(Status(Code::kResourceExhausted,
                            "the peer announced a frame of " + std::to_string(length) + " bytes"));
          return;
        }
        self->read_body(length);
      });
}

void AsioChannel::read_body(uint32_t length) {
  body_.resize(length);
  asio::async_read(
      stream_, asio::buffer(body_),
      [self = shared_from_this()](const boost::system::error_code& error, size_t) {
        if (self->shut_) return;
        proto::NodeFrame frame;
        if (error) {
          self->shut(Status(Code::kUnavailable, "the peer is gone: " + error.message()));
          return;
        }
        if (!frame.ParseFromString(self->body_)) {
          self->shut(Status(Code::kCorruption, "a frame that is no message"));
          return;
        }
        self->handlers_.on_frame(std::move(frame));
        if (!self->shut_) self->read_header();
      });
}

void AsioChannel::shut(Status why) {
  if (shut_) return;
  shut_ = true;
  closed_ = true;
  queued_ = 0;
  closing_timer_.cancel();
  boost::system::error_code ignored;
  stream_.next_layer().shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  stream_.next_layer().close(ignored);
  Handlers handlers = std::move(handlers_);
  handlers_ = {};
  if (handlers.on_close) handlers.on_close(std::move(why));
}

}  // namespace weft
