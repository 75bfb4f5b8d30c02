#include "coordinator/cli/http_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <chrono>

namespace weft::cli {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Error = beast::error_code;
using Parser = http::response_parser<http::buffer_body>;

struct HttpClient::State {
  std::string host;
  int port = 0;
  std::string token;
  asio::io_context io;
  std::unique_ptr<beast::tcp_stream> stream;
  beast::flat_buffer buffer;

  // Runs one asynchronous operation to its end, within the stream's deadline.
  template <typename Start>
  Error run(double seconds, Start start) {
    Error result = asio::error::would_block;
    if (stream) {
      stream->expires_after(std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000)));
    }
    start([&result](Error error, auto&&...) { result = error; });
    io.restart();
    io.run();
    return result;
  }

  Status connect(double seconds);
  Error exchange_head(const HttpCall& call, Parser& parser);
  Status failure(const Error& error) const;
  std::string authority() const;  // host:port, an IPv6 address in brackets
  void drop() { stream.reset(); }
};

std::string HttpClient::State::authority() const {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return is_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

Status HttpClient::State::failure(const Error& error) const {
  std::string why = error.message();
  if (error == beast::error::timeout) why = "no answer in time";
  if (error == http::error::end_of_stream) {
    why = "it closes the connection without an answer, as a coordinator's port for agents does";
  }
  return Status(Code::kUnavailable,
                fmt::format("cannot reach the coordinator at {}: {}; is it running? 'weft up' "
                            "starts one here, --server names another",
                            authority(), why));
}

Status HttpClient::State::connect(double seconds) {
  buffer.clear();
  asio::ip::tcp::resolver resolver(io);
  Error error;
  const auto found = resolver.resolve(host, std::to_string(port), error);
  if (error) return failure(error);
  stream = std::make_unique<beast::tcp_stream>(io);
  error = run(std::min(seconds, 10.0), [&](auto done) { stream->async_connect(found, done); });
  if (error) {
    drop();
    return failure(error);
  }
  stream->socket().set_option(asio::ip::tcp::no_delay(true), error);
  return Status();
}

// Sends the request and reads the head of its answer.
Error HttpClient::State::exchange_head(const HttpCall& call, Parser& parser) {
  http::request<http::string_body> request(http::string_to_verb(call.method), call.target, 11);
  request.set(http::field::host, authority());
  request.set(http::field::authorization, "Bearer " + token);
  request.set(http::field::user_agent, "weft");
  for (const auto& [name, value] : call.headers) request.set(name, value);
  if (!call.content_type.empty()) request.set(http::field::content_type, call.content_type);
  request.body() = call.body;
  if (!call.body.empty() || !call.content_type.empty()) request.prepare_payload();
  Error error =
      run(call.seconds_max, [&](auto done) { http::async_write(*stream, request, done); });
  parser.body_limit(boost::none);  // it is held against the length that the head tells
  // A server that refuses a body answers before it has read it: look for that answer first.
  const Error read_error = run(
      call.seconds_max, [&](auto done) { http::async_read_header(*stream, buffer, parser, done); });
  return read_error && error ? error : read_error;
}

HttpClient::HttpClient(std::string host, int port, std::string token)
    : state_(std::make_unique<State>()) {
  state_->host = std::move(host);
  state_->port = port;
  state_->token = std::move(token);
}
HttpClient::~HttpClient() = default;
HttpClient::HttpClient(HttpClient&&) noexcept = default;
HttpClient& HttpClient::operator=(HttpClient&&) noexcept = default;

Result<HttpReply> HttpClient::send(const HttpCall& call) { return stream(call, nullptr); }

Result<HttpReply> HttpClient::stream(const HttpCall& call,
                                     const std::function<Status(std::string_view)>& sink) {
  State& state = *state_;
  auto parser = std::make_unique<Parser>();
  const bool kept = state.stream != nullptr;
  if (!kept) WEFT_RETURN_IF_ERROR(state.connect(call.seconds_max));
  Error error = state.exchange_head(call, *parser);
  if (error && kept && error != beast::error::timeout) {
    state.drop();
    WEFT_RETURN_IF_ERROR(state.connect(call.seconds_max));
    parser = std::make_unique<Parser>();
    error = state.exchange_head(call, *parser);
  }
  if (error) {
    state.drop();
    return fail(state.failure(error));
  }
  HttpReply reply;
  reply.status = parser->get().result_int();
  const bool hand_on = sink && reply.status / 100 == 2;
  std::array<char, 64 << 10> piece;
  while (!parser->is_done()) {
    parser->get().body().data = piece.data();
    parser->get().body().size = piece.size();
    error = state.run(call.seconds_max, [&](auto done) {
      http::async_read_some(*state.stream, state.buffer, *parser, done);
    });
    if (error == http::error::need_buffer) error = {};
    const std::string_view got(piece.data(), piece.size() - parser->get().body().size);
    const Status taken = hand_on && !got.empty() ? sink(got) : Status();
    if (!hand_on) reply.body += got;
    if (!taken.ok() || error) {
      state.drop();
      return fail(taken.ok() ? state.failure(error) : taken);
    }
  }
  if (!parser->get().keep_alive()) state.drop();
  return reply;
}

}  // namespace weft::cli
