#include "cluster/rpc/rpc.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <thread>
#include <vector>

#include "cluster/rpc/asio_channel.h"
#include "cluster/rpc/tls.h"

namespace weft {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr auto kHandshakeTime = std::chrono::seconds(10);

// An io_context with the thread that runs it. The thread ends once nothing is left to run, so first
// close what waits for the network. May be destroyed from its own thread, and sockets may outlive
// it: both share the io_context.
class IoThread {
 public:
  IoThread()
      : io_(std::make_shared<asio::io_context>(1)),
        work_(asio::make_work_guard(*io_)),
        thread_([io = io_] { io->run(); }) {}
  ~IoThread() { end(); }
  // What still runs may use this until then.
  void end() {
    work_.reset();
    if (!thread_.joinable()) return;
    if (thread_.get_id() == std::this_thread::get_id()) {
      thread_.detach();
    } else {
      thread_.join();
    }
  }
  asio::io_context& io() { return *io_; }
  std::shared_ptr<asio::io_context> shared_io() { return io_; }

 private:
  std::shared_ptr<asio::io_context> io_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::thread thread_;
};

// What an accepted channel keeps alive.
struct Accepted {
  std::shared_ptr<asio::ssl::context> tls;
  std::shared_ptr<asio::io_context> io;
};

// A peer that vanished without a word is noticed within this time, also while nothing is sent.
constexpr int kSilenceSeconds = 30;

void tune(tcp::socket& socket) {
  boost::system::error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  const int on = 1, idle = kSilenceSeconds / 2, every = kSilenceSeconds / 6, count = 3;
  const int timeout_ms = kSilenceSeconds * 1000;
  const int fd = socket.native_handle();
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

std::string describe(const tcp::socket& socket) {
  boost::system::error_code error;
  const auto end = socket.remote_endpoint(error);
  if (error) return "unknown peer";
  return end.address().to_string() + ":" + std::to_string(end.port());
}

class Server final : public RpcServer {
 public:
  Server(const std::string& secret, OnAccept on_accept)
      : tls_(tls_context(TlsSide::kServer, secret)),
        on_accept_(std::move(on_accept)),
        acceptor_(thread_.io()) {}

  // Every channel and handshake is closed, then the thread has nothing left to run.
  ~Server() override {
    asio::post(thread_.io(), [this] {
      stopping_ = true;
      boost::system::error_code ignored;
      acceptor_.close(ignored);
      for (const auto& weak : handshakes_) {
        if (const auto stream = weak.lock()) stream->next_layer().close(ignored);
      }
      for (const auto& weak : channels_) {
        if (const auto channel = weak.lock()) {
          channel->close(Status(Code::kUnavailable, "shutting down"));
        }
      }
    });
    thread_.end();
  }

  Status open(const std::string& address, int port) {
    boost::system::error_code error;
    const auto ip = asio::ip::make_address(address, error);
    if (error) return Status::invalid("address for agents", address, "must be an IP address");
    const tcp::endpoint endpoint(ip, static_cast<uint16_t>(port));
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      return Status(Code::kUnavailable, "cannot listen on " + address + ":" + std::to_string(port) +
                                            ": " + error.message() +
                                            "; choose another port with --agent-port, or end "
                                            "the program that has it ('ss -ltnp' names it)")
          .with_field("--agent-port")
          .with_value(address + ":" + std::to_string(port));
    }
    port_ = acceptor_.local_endpoint().port();
    asio::post(thread_.io(), [this] { accept(); });
    return {};
  }

  int port() const override { return port_; }

 private:
  void accept() {
    acceptor_.async_accept([this](const boost::system::error_code& error, tcp::socket socket) {
      if (error == asio::error::operation_aborted || !acceptor_.is_open()) return;
      if (!error) handshake(std::move(socket));
      accept();
    });
  }

  void handshake(tcp::socket socket) {
    tune(socket);
    const std::string peer = describe(socket);
    auto stream = std::make_shared<TlsStream>(std::move(socket), *tls_);
    std::erase_if(handshakes_, [](const auto& weak) { return weak.expired(); });
    handshakes_.push_back(stream);
    auto timer = std::make_shared<asio::steady_timer>(thread_.io(), kHandshakeTime);
    timer->async_wait([stream](const boost::system::error_code& error) {
      boost::system::error_code closing;
      if (!error) stream->next_layer().close(closing);
    });
    stream->async_handshake(asio::ssl::stream_base::server,
                            [this, stream, timer, peer](const boost::system::error_code& error) {
                              timer->cancel();
                              if (!error && !stopping_) hand_over(std::move(*stream), peer);
                            });
  }

  void hand_over(TlsStream stream, const std::string& peer) {
    auto base = std::make_shared<Accepted>(Accepted{tls_, thread_.shared_io()});
    auto channel = std::make_shared<AsioChannel>(std::move(stream), peer, std::move(base));
    std::erase_if(channels_, [](const auto& weak) { return weak.expired(); });
    channels_.push_back(channel);
    on_accept_(std::move(channel));
  }

  std::shared_ptr<asio::ssl::context> tls_;
  const OnAccept on_accept_;
  IoThread thread_;
  tcp::acceptor acceptor_;
  int port_ = 0;
  // The io thread's own.
  bool stopping_ = false;
  std::vector<std::weak_ptr<TlsStream>> handshakes_;
  std::vector<std::weak_ptr<AsioChannel>> channels_;
};

// What a dialled channel keeps alive.
struct Dialled {
  std::shared_ptr<asio::ssl::context> tls;
  IoThread thread;
};

Status unreachable(const std::string& host, int port, const std::string& why) {
  return Status(Code::kUnavailable,
                "cannot reach " + host + ":" + std::to_string(port) + ": " + why);
}

}  // namespace

Result<std::unique_ptr<RpcServer>> listen(const std::string& address, int port,
                                          const std::string& secret,
                                          RpcServer::OnAccept on_accept) {
  auto server = std::make_unique<Server>(secret, std::move(on_accept));
  WEFT_RETURN_IF_ERROR(server->open(address, port));
  return server;
}

Result<std::shared_ptr<Channel>> connect(const std::string& host, int port,
                                         const std::string& secret, double timeout_seconds) {
  auto dialled = std::make_shared<Dialled>();
  dialled->tls = tls_context(TlsSide::kClient, secret);
  auto& io = dialled->thread.io();
  boost::system::error_code error;
  tcp::resolver resolver(io);
  const auto endpoints = resolver.resolve(host, std::to_string(port), error);
  if (error) return fail(unreachable(host, port, error.message()));
  auto stream = std::make_shared<TlsStream>(io, *dialled->tls);
  auto timer = std::make_shared<asio::steady_timer>(io);
  auto outcome = std::make_shared<std::promise<Status>>();
  auto future = outcome->get_future();
  asio::post(io, [=] {
    timer->expires_after(std::chrono::milliseconds(static_cast<int64_t>(timeout_seconds * 1000)));
    timer->async_wait([stream](const boost::system::error_code& waited) {
      boost::system::error_code ignored;
      if (!waited) stream->next_layer().close(ignored);
    });
    asio::async_connect(
        stream->next_layer(), endpoints,
        [=](const boost::system::error_code& connected, const tcp::endpoint&) {
          if (connected) {
            timer->cancel();
            outcome->set_value(unreachable(host, port, connected.message()));
            return;
          }
          tune(stream->next_layer());
          stream->async_handshake(
              asio::ssl::stream_base::client, [=](const boost::system::error_code& shaken) {
                timer->cancel();
                outcome->set_value(shaken ? Status(Code::kUnauthenticated,
                                                   host + ":" + std::to_string(port) +
                                                       " does not share this cluster's secret (" +
                                                       shaken.message() + "); check the join token")
                                          : Status());
              });
        });
  });
  const Status status = future.get();
  // The io thread lets go of the stream before it is moved.
  std::promise<void> settled;
  asio::post(io, [&settled] { settled.set_value(); });
  settled.get_future().wait();
  WEFT_RETURN_IF_ERROR(status);
  const std::string peer = describe(stream->next_layer());
  return std::shared_ptr<Channel>(
      std::make_shared<AsioChannel>(std::move(*stream), peer, std::move(dialled)));
}

}  // namespace weft
