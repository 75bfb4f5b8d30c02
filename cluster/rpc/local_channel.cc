#include "cluster/rpc/local_channel.h"

#include <google/protobuf/message_lite.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <deque>
#include <utility>

namespace weft {
namespace {

namespace asio = boost::asio;
using Protocol = asio::local::stream_protocol;

class SocketChannel final : public LocalChannel,
                            public std::enable_shared_from_this<SocketChannel> {
 public:
  explicit SocketChannel(Protocol::socket socket) : socket_(std::move(socket)) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(socket_.native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0) {
      peer_uid_ = peer.uid;
    }
  }

  void start(std::function<void(std::string)> on_frame, std::function<void()> on_close) override {
    on_frame_ = std::move(on_frame);
    on_close_ = std::move(on_close);
    read_header();
  }

  bool send(const google::protobuf::MessageLite& frame) override {
    if (shut_ || leaving_) return false;
    const size_t size = frame.ByteSizeLong();
    if (size > kLocalFrameBytesMax) return false;
    std::string bytes;
    bytes.reserve(size + 4);
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes.push_back(static_cast<char>((size >> shift) & 0xff));
    }
    frame.AppendToString(&bytes);
    outgoing_.push_back(std::move(bytes));
    if (outgoing_.size() == 1) write_next();
    return true;
  }

  void close() override {
    leaving_ = true;
    if (outgoing_.empty()) shut();
  }

  uid_t peer_uid() const override { return peer_uid_; }

 private:
  void write_next() {
    asio::async_write(socket_, asio::buffer(outgoing_.front()),
                      [self = shared_from_this()](const boost::system::error_code& error, size_t) {
                        if (self->shut_) return;
                        self->outgoing_.pop_front();
                        if (error) return self->shut();
                        if (!self->outgoing_.empty()) return self->write_next();
                        if (self->leaving_) self->shut();
                      });
  }

  void read_header() {
    asio::async_read(socket_, asio::buffer(header_),
                     [self = shared_from_this()](const boost::system::error_code& error, size_t) {
                       if (self->shut_) return;
                       uint32_t length = 0;
                       for (const unsigned char byte : self->header_) length = length << 8 | byte;
                       if (error || length > kLocalFrameBytesMax) return self->shut();
                       self->read_body(length);
                     });
  }

  void read_body(uint32_t length) {
    body_.resize(length);
    asio::async_read(socket_, asio::buffer(body_),
                     [self = shared_from_this()](const boost::system::error_code& error, size_t) {
                       if (self->shut_) return;
                       if (error) return self->shut();
                       if (!self->leaving_) self->on_frame_(std::exchange(self->body_, {}));
                       if (!self->shut_) self->read_header();
                     });
  }

  void shut() {
    if (shut_) return;
    shut_ = true;
    boost::system::error_code ignored;
    socket_.close(ignored);
    // Posted: the owner may be in the middle of something that this would change.
    asio::post(socket_.get_executor(), [self = shared_from_this()] {
      const auto on_close = std::exchange(self->on_close_, nullptr);
      self->on_frame_ = nullptr;
      if (on_close) on_close();
    });
  }

  Protocol::socket socket_;
  uid_t peer_uid_ = static_cast<uid_t>(-1);
  std::function<void(std::string)> on_frame_;
  std::function<void()> on_close_;
  std::array<unsigned char, 4> header_{};
  std::string body_;
  std::deque<std::string> outgoing_;
  bool leaving_ = false, shut_ = false;
};

class SocketServer final : public LocalServer {
 public:
  using OnAccept = std::function<void(std::shared_ptr<LocalChannel>)>;
  SocketServer(asio::io_context& io, std::string path, OnAccept on_accept)
      : path_(std::move(path)), on_accept_(std::move(on_accept)), acceptor_(io) {}
  ~SocketServer() override {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    *alive_ = false;
    if (bound_) ::unlink(path_.c_str());
  }

  Status open(uid_t owner) {
    boost::system::error_code error;
    ::unlink(path_.c_str());
    acceptor_.open(Protocol(), error);
    if (!error) acceptor_.bind(Protocol::endpoint(path_), error);
    bound_ = !error;
    if (!error && owner != ::geteuid() &&
        ::chown(path_.c_str(), owner, static_cast<gid_t>(-1)) != 0) {
      error.assign(errno, boost::system::system_category());
    }
    if (!error) ::chmod(path_.c_str(), 0600);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) return Status(Code::kUnavailable, "socket " + path_ + ": " + error.message());
    accept();
    return {};
  }

 private:
  void accept() {
    acceptor_.async_accept(
        [this, alive = alive_](const boost::system::error_code& error, Protocol::socket socket) {
          if (!*alive || error == asio::error::operation_aborted) return;
          if (!error) on_accept_(std::make_shared<SocketChannel>(std::move(socket)));
          if (*alive) accept();
        });
  }

  const std::string path_;
  const OnAccept on_accept_;
  Protocol::acceptor acceptor_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  bool bound_ = false;
};

Status check_length(const std::string& path) {
  if (path.size() <= kSocketPathBytesMax) return {};
  return Status(Code::kInvalidArgument, "socket " + path + ": longer than 107 bytes");
}

}  // namespace

Result<std::unique_ptr<LocalServer>> listen_local(
    asio::io_context& io, const std::string& path, uid_t owner,
    std::function<void(std::shared_ptr<LocalChannel>)> on_accept) {
  WEFT_RETURN_IF_ERROR(check_length(path));
  auto server = std::make_unique<SocketServer>(io, path, std::move(on_accept));
  WEFT_RETURN_IF_ERROR(server->open(owner));
  return server;
}

Result<std::shared_ptr<LocalChannel>> connect_local(asio::io_context& io,
                                                    const std::string& path) {
  WEFT_RETURN_IF_ERROR(check_length(path));
  Protocol::socket socket(io);
  boost::system::error_code error;
  socket.connect(Protocol::endpoint(path), error);
  if (error) return fail(Code::kUnavailable, "socket " + path + ": " + error.message());
  return std::make_shared<SocketChannel>(std::move(socket));
}

}  // namespace weft
