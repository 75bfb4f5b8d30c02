#include "coordinator/api/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <cctype>
#include <chrono>
#include <exception>
#include <functional>

#include "proto/base/hash.h"

namespace weft::api {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Parser = http::request_parser<http::string_body>;
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr size_t kLingerBytesMax = size_t{64} << 20;
constexpr auto kLinger = std::chrono::seconds(2);  // without a byte

std::chrono::milliseconds seconds(double s) {
  return std::chrono::milliseconds(static_cast<int64_t>(s * 1000));
}

// Nobody is there to read an answer; a peer that was too slow was cut off by the stream's timer.
bool peer_gone(const beast::error_code& error) {
  return error.category() == boost::system::system_category() || error == beast::error::timeout ||
         error == asio::error::eof;
}

class Session {
 public:
  Session(asio::ip::tcp::socket socket, SessionContext& context)
      : stream_(std::move(socket)),
        context_(context),
        options_(context.options),
        buffer_(128 << 10) {
    ++context_.connections;
  }
  ~Session() { --context_.connections; }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  asio::awaitable<void> run();

 private:
  asio::awaitable<bool> wait_for_request();
  asio::awaitable<bool> serve_one();
  asio::awaitable<beast::error_code> read_body(Parser& parser);
  struct Piece {
    Result<BodyStream::Next> next = BodyStream::Next::kEnd;
    std::string bytes;
  };
  Response call_route(const Route& route, const Request& request) const;
  static Piece read_piece(BodyStream& body);
  asio::awaitable<bool> write(Response response, const Request& request, unsigned version);
  asio::awaitable<bool> write_stream(Response response, const Request& request, unsigned version);
  asio::awaitable<bool> write_pieces(BodyStream& body, bool chunked);
  asio::awaitable<bool> write_piece(std::string piece, bool chunked);
  asio::awaitable<void> linger();
  Request make_request(const Parser& parser) const;
  Response head_refusal(Request& request, const Route** route) const;
  Response read_error(const beast::error_code& error, const std::string& request_id) const;

  beast::tcp_stream stream_;
  SessionContext& context_;
  const ServerOptions& options_;
  beast::flat_buffer buffer_;
};

// Runs `work` on the pool of handlers and comes back to the session's strand. The caller's frame
// keeps `work` and what it refers to alive: a coroutine's frame stays until it is resumed.
asio::awaitable<void> on_handlers(SessionContext& context, const std::function<void()>& work) {
  asio::thread_pool& handlers = context.handlers;
  const auto start = [&handlers, &work](auto done) {
    asio::post(handlers, [&work, done = std::move(done)]() mutable {
      work();
      const auto executor = asio::get_associated_executor(done);
      asio::post(executor, std::move(done));
    });
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(start, asio::use_awaitable);
}

asio::awaitable<void> Session::run() {
  boost::system::error_code ignored;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  while (co_await wait_for_request()) {
    if (!co_await serve_one()) break;
  }
  co_await linger();
}

// Lets the peer read our last answer before the connection goes: what it still sends is dropped,
// within bounds, because unread bytes would turn the close into a reset.
asio::awaitable<void> Session::linger() {
  boost::system::error_code ignored;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  const auto end = std::chrono::steady_clock::now() + seconds(options_.body_seconds_max);
  std::vector<char> waste(64 << 10);
  for (size_t dropped = 0; dropped < kLingerBytesMax;) {
    stream_.expires_at(std::min(end, std::chrono::steady_clock::now() + kLinger));
    const auto [error, n] = co_await stream_.async_read_some(asio::buffer(waste), kAwait);
    if (error) break;
    dropped += n;
  }
  stream_.close();
}

asio::awaitable<bool> Session::wait_for_request() {
  if (buffer_.size() > 0) co_return true;  // pipelined
  stream_.expires_after(seconds(options_.idle_seconds_max));
  const auto [error, n] = co_await stream_.async_read_some(buffer_.prepare(8 << 10), kAwait);
  if (error) co_return false;
  buffer_.commit(n);
  co_return true;
}

Request Session::make_request(const Parser& parser) const {
  Request request;
  const auto& head = parser.get();
  request.method = std::string(head.method_string());
  request.target = std::string(head.target());
  for (const auto& field : head) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    request.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  boost::system::error_code ignored;
  const auto local = stream_.socket().local_endpoint(ignored);
  request.local_address = local.address().to_string();
  request.local_port = local.port();
  return request;
}

// Everything that can be refused from the head alone, before a byte of the body is read.
Response Session::head_refusal(Request& request, const Route** route) const {
  if (Status s = context_.guard.check_origin(request); !s.ok()) {
    return error_response(s, request.request_id);
  }
  if (count_values(request.headers, "content-length") > 1) {
    return error_response(
        Status(Code::kInvalidArgument, "malformed request: two Content-Length headers"),
        request.request_id);
  }
  const Status target = parse_target(request);
  if (!target.ok() || !context_.router.is_open(request)) {
    if (Status s = context_.guard.check_token(request); !s.ok()) {
      return error_response(s, request.request_id);
    }
  }
  if (!target.ok()) return error_response(target, request.request_id);
  Router::Match match = context_.router.match(request);
  *route = match.route;
  return std::move(match.refusal);
}

Response Session::read_error(const beast::error_code& error, const std::string& request_id) const {
  Response response;
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    response = error_response(Status(Code::kInvalidArgument, "the request's head is too large")
                                  .with_rule(fmt::format("must have at most {} bytes, its path and "
                                                         "headers together",
                                                         options_.head_bytes_max)),
                              request_id, 431, "head_too_large");
  } else if (error == http::error::body_limit) {
    response = error_response(Status(Code::kInvalidArgument, "the request's body is too large")
                                  .with_rule("data goes up in chunks: PUT /api/v1/chunks/{sha256}"),
                              request_id, 413, "body_too_large");
  } else {
    response = error_response(
        Status(Code::kInvalidArgument, "malformed request: " + error.message()), request_id);
  }
  response.close = true;
  return response;
}

asio::awaitable<beast::error_code> Session::read_body(Parser& parser) {
  stream_.expires_after(seconds(options_.body_seconds_max));
  if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    const std::string line = "HTTP/1.1 100 Continue\r\n\r\n";
    const auto [error, n] = co_await asio::async_write(stream_, asio::buffer(line), kAwait);
    if (error) co_return error;
  }
  const auto [error, n] = co_await http::async_read(stream_, buffer_, parser, kAwait);
  co_return error;
}

asio::awaitable<bool> Session::serve_one() {
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(options_.head_bytes_max));
  parser.body_limit(static_cast<uint64_t>(options_.body_bytes_max));
  stream_.expires_after(seconds(options_.head_seconds_max));
  Request request;
  request.request_id = "req-" + random_hex(8);
  const auto [head_error, n] = co_await http::async_read_header(stream_, buffer_, parser, kAwait);
  if (head_error == http::error::end_of_stream) co_return false;
  if (head_error) {
    if (!peer_gone(head_error))
      co_await write(read_error(head_error, request.request_id), request, 11);
    co_return false;
  }
  const unsigned version = parser.get().version();
  std::string id = std::move(request.request_id);
  request = make_request(parser);
  request.request_id = std::move(id);
  const bool keep = parser.get().keep_alive();

  const Route* route = nullptr;
  Response refusal = head_refusal(request, &route);
  if (route == nullptr) {
    refusal.close = refusal.close || !parser.is_done();  // its body stays unread
    co_return co_await write(std::move(refusal), request, version) && keep;
  }
  if (!parser.is_done()) {
    if (const beast::error_code error = co_await read_body(parser)) {
      if (!peer_gone(error))
        co_await write(read_error(error, request.request_id), request, version);
      co_return false;
    }
  }
  request.body = std::move(parser.get().body());
  stream_.expires_never();
  Response response;
  const std::function<void()> work = [&] { response = call_route(*route, request); };
  co_await on_handlers(context_, work);
  request.body = std::string();
  response.close = response.close || !keep;
  co_return co_await write(std::move(response), request, version);
}

Response Session::call_route(const Route& route, const Request& request) const {
  try {
    return Router::call(route, request);
  } catch (const std::exception& error) {
    context_.logger.error("{} {} {}: {}", request.request_id, request.method, route.pattern,
                          error.what());
    return error_response(
        Status(Code::kInternal, "internal error; the coordinator's log has the details"),
        request.request_id);
  }
}

Session::Piece Session::read_piece(BodyStream& body) {
  Piece piece;
  try {
    piece.next = body.read(piece.bytes);
  } catch (const std::exception& error) {
    piece.next = fail(Code::kInternal, error.what());
  }
  return piece;
}

void set_head(http::fields& fields, const Response& response, const Request& request) {
  fields.set("X-Request-Id", request.request_id);
  fields.set("X-Content-Type-Options", "nosniff");
  fields.set("Cache-Control", "no-store");
  if (!response.content_type.empty()) fields.set(http::field::content_type, response.content_type);
  for (const auto& [name, value] : response.headers) fields.insert(name, value);
}

asio::awaitable<bool> Session::write(Response response, const Request& request, unsigned version) {
  if (response.stream) co_return co_await write_stream(std::move(response), request, version);
  stream_.expires_after(seconds(options_.write_seconds_max));
  beast::error_code error;
  const bool empty = request.method == "HEAD" || response.status == 204;
  const size_t size = response.body.size();
  http::response<http::string_body> message;
  message.result(static_cast<unsigned>(response.status));
  message.version(version);
  set_head(message, response, request);
  message.keep_alive(!response.close);
  if (response.status != 204) message.content_length(size);
  if (!empty) message.body() = std::move(response.body);
  http::response_serializer<http::string_body> serializer(message);
  if (empty) {
    std::tie(error, std::ignore) = co_await http::async_write_header(stream_, serializer, kAwait);
  } else {
    std::tie(error, std::ignore) = co_await http::async_write(stream_, serializer, kAwait);
  }
  co_return !error && !response.close;
}

asio::awaitable<bool> Session::write_stream(Response response, const Request& request,
                                            unsigned version) {
  stream_.expires_after(seconds(options_.write_seconds_max));
  const bool chunked = !response.stream_bytes && version >= 11;
  const bool keep = !response.close && (chunked || response.stream_bytes);
  http::response<http::empty_body> head;
  head.result(static_cast<unsigned>(response.status));
  head.version(version);
  set_head(head, response, request);
  head.keep_alive(keep);
  if (chunked) head.chunked(true);
  if (response.stream_bytes) head.content_length(static_cast<uint64_t>(*response.stream_bytes));
  http::response_serializer<http::empty_body> serializer(head);
  const auto [error, n] = co_await http::async_write_header(stream_, serializer, kAwait);
  if (error) co_return false;
  if (request.method == "HEAD") co_return keep;
  if (!co_await write_pieces(*response.stream, chunked)) {
    stream_.close();  // the peer sees that the body broke off
    co_return false;
  }
  co_return keep;
}

asio::awaitable<bool> Session::write_pieces(BodyStream& body, bool chunked) {
  using Clock = std::chrono::steady_clock;
  auto last_write = Clock::now();
  while (true) {
    Piece piece;
    const std::function<void()> work = [&] { piece = read_piece(body); };
    co_await on_handlers(context_, work);
    if (!piece.next) {
      context_.logger.warn("a streamed answer broke off: {}", piece.next.error().to_string());
      co_return false;
    }
    const bool quiet = Clock::now() - last_write > seconds(options_.heartbeat_seconds);
    if (piece.bytes.empty() && *piece.next == BodyStream::Next::kWait && quiet) {
      piece.bytes = body.heartbeat();
    }
    if (!piece.bytes.empty()) {
      if (!co_await write_piece(std::move(piece.bytes), chunked)) co_return false;
      last_write = Clock::now();
    }
    if (*piece.next == BodyStream::Next::kEnd) break;
    if (*piece.next == BodyStream::Next::kWait) {
      asio::steady_timer timer(co_await asio::this_coro::executor,
                               seconds(options_.stream_poll_seconds));
      co_await timer.async_wait(kAwait);
    }
  }
  if (!chunked) co_return true;
  stream_.expires_after(seconds(options_.write_seconds_max));
  const auto [error, n] = co_await asio::async_write(stream_, http::make_chunk_last(), kAwait);
  co_return !error;
}

asio::awaitable<bool> Session::write_piece(std::string piece, bool chunked) {
  stream_.expires_after(seconds(options_.write_seconds_max));
  beast::error_code error;
  if (chunked) {
    std::tie(error, std::ignore) =
        co_await asio::async_write(stream_, http::make_chunk(asio::buffer(piece)), kAwait);
  } else {
    std::tie(error, std::ignore) = co_await asio::async_write(stream_, asio::buffer(piece), kAwait);
  }
  co_return !error;
}

}  // namespace

asio::awaitable<void> serve_connection(asio::ip::tcp::socket socket, SessionContext& context) {
  try {
    Session session(std::move(socket), context);
    co_await session.run();
  } catch (const std::exception& error) {
    context.logger.error("connection: {}", error.what());
  }
}

}  // namespace weft::api
