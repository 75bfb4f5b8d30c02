#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <thread>

#include "coordinator/api/session.h"

namespace weft::api {

namespace asio = boost::asio;
using asio::ip::tcp;

struct ApiServer::State {
  State(ServerOptions options, Router router, Logger logger)
      : context(std::move(options), std::move(router), std::move(logger)), acceptor(io) {}

  SessionContext context;
  asio::io_context io;  // destroyed before the context its sessions refer to
  tcp::acceptor acceptor;
  std::vector<std::thread> threads;
  bool stopped = false;
};

namespace {

asio::awaitable<void> refuse_connection(tcp::socket socket) {
  const Response response = error_response(
      Status(Code::kUnavailable, "too many connections; try again in a second"), "", 503);
  const std::string text = fmt::format(
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
      "X-Request-Id: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
      "refused", response.body.size(), response.body);
  co_await asio::async_write(socket, asio::buffer(text), asio::as_tuple(asio::use_awaitable));
}

asio::awaitable<void> accept_loop(tcp::acceptor& acceptor, asio::io_context& io,
                                  SessionContext& context) {
  while (acceptor.is_open()) {
    tcp::socket socket(asio::make_strand(io));
    const auto [error] =
        co_await acceptor.async_accept(socket, asio::as_tuple(asio::use_awaitable));
    if (error == asio::error::operation_aborted) co_return;
    if (error) {  // out of descriptors: give running requests time to end
      context.logger.warn("accept: {}", error.message());
      asio::steady_timer timer(io, std::chrono::milliseconds(100));
      co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
      continue;
    }
    const auto executor = socket.get_executor();
    if (context.connections.load() >= context.options.connections_max) {
      asio::co_spawn(executor, refuse_connection(std::move(socket)), asio::detached);
    } else {
      asio::co_spawn(executor, serve_connection(std::move(socket), context), asio::detached);
    }
  }
}

Status bind(tcp::acceptor& acceptor, const ServerOptions& options) {
  boost::system::error_code error;
  const auto address = asio::ip::make_address(options.address, error);
  if (error) {
    return Status::invalid("listen address", options.address, "must be an IP address");
  }
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(options.port));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) return Status();
  return Status(Code::kUnavailable,
                fmt::format("cannot listen on {} port {}: {}; choose another port, or end the "
                            "program that has it ('ss -ltnp' names it)",
                            options.address, options.port, error.message()));
}

}  // namespace

ApiServer::ApiServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
ApiServer::~ApiServer() { stop(); }

Result<std::unique_ptr<ApiServer>> ApiServer::start(ServerOptions options, Router router,
                                                    Logger logger) {
  if (options.token.size() < 16) {
    return fail(Status(Code::kInvalidArgument, "the API needs a token")
                    .with_field("token")
                    .with_rule("must have at least 16 characters"));
  }
  auto state = std::make_unique<State>(std::move(options), std::move(router), std::move(logger));
  WEFT_RETURN_IF_ERROR(bind(state->acceptor, state->context.options));
  asio::co_spawn(state->io, accept_loop(state->acceptor, state->io, state->context),
                 asio::detached);
  for (int i = 0; i < state->context.options.io_threads; ++i) {
    state->threads.emplace_back([&io = state->io] { io.run(); });
  }
  return std::unique_ptr<ApiServer>(new ApiServer(std::move(state)));
}

int ApiServer::port() const { return state_->acceptor.local_endpoint().port(); }

void ApiServer::stop() {
  if (std::exchange(state_->stopped, true)) return;
  state_->io.stop();
  for (std::thread& thread : state_->threads) thread.join();
  state_->context.handlers.join();
  boost::system::error_code ignored;
  state_->acceptor.close(ignored);
}

}  // namespace weft::api
