#include "coordinator/cli/api_client.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "proto/json/message_json.h"

namespace weft::cli {
namespace {

constexpr int kReconnectsMax = 30;
const ReadOptions kAnswer = {.allow_output_only = true, .lenient = true};

Code code_of(const std::string& name, int status) {
  for (int i = static_cast<int>(Code::kInvalidArgument); i <= static_cast<int>(Code::kInternal);
       ++i) {
    if (code_name(static_cast<Code>(i)) == name) return static_cast<Code>(i);
  }
  if (status == 404) return Code::kNotFound;
  return status < 500 ? Code::kInvalidArgument : Code::kUnavailable;
}

}  // namespace

Status error_of(const HttpReply& reply) {
  proto::ErrorBody body;
  if (!read_json(reply.body, body, kAnswer).ok() || !body.has_error()) {
    return Status(
        code_of("", reply.status),
        fmt::format("the server answered with status {}; is it a Weft coordinator?", reply.status));
  }
  const proto::ApiError& error = body.error();
  std::string message = error.message();
  if (reply.status >= 500) message += fmt::format(" (request {})", error.request_id());
  return Status(code_of(error.code(), reply.status), message)
      .with_field(error.field())
      .with_value(error.value())
      .with_rule(error.rule())
      .with_request_id(error.request_id());
}

std::string encoded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    const bool plain = (u >= '0' && u <= '9') || (u >= 'A' && u <= 'Z') || (u >= 'a' && u <= 'z') ||
                       u == '-' || u == '_' || u == '.' || u == '~';
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", u);
  }
  return out;
}

ApiClient::ApiClient(const Endpoint& endpoint)
    : endpoint_(endpoint), http_(endpoint.host, endpoint.port, endpoint.token) {}

Result<ApiClient> ApiClient::connect(const Settings& settings) {
  WEFT_ASSIGN_OR_RETURN(const Endpoint endpoint, find_endpoint(settings));
  return ApiClient(endpoint);
}

Status ApiClient::get(const std::string& path, google::protobuf::Message& into) {
  return send("GET", path, nullptr, &into);
}

Status ApiClient::send(const std::string& method, const std::string& path,
                       const google::protobuf::Message* body, google::protobuf::Message* into,
                       const std::string& idempotency_key) {
  HttpCall call;
  call.method = method;
  call.target = "/api/v1/" + path;
  if (body != nullptr) {
    call.content_type = "application/json";
    call.body = write_json(*body);
  }
  if (!idempotency_key.empty()) call.headers.emplace_back("Idempotency-Key", idempotency_key);
  WEFT_ASSIGN_OR_RETURN(const HttpReply reply, http_.send(call));
  if (reply.status / 100 != 2) return error_of(reply);
  return into == nullptr ? Status() : read_json(reply.body, *into, kAnswer);
}

Status ApiClient::put_bytes(const std::string& path, std::string bytes) {
  HttpCall call;
  call.method = "PUT";
  call.target = "/api/v1/" + path;
  call.content_type = "application/octet-stream";
  call.body = std::move(bytes);
  WEFT_ASSIGN_OR_RETURN(const HttpReply reply, http_.send(call));
  return reply.status / 100 == 2 ? Status() : error_of(reply);
}

Status ApiClient::download(const std::string& path,
                           const std::function<Status(std::string_view)>& sink) {
  HttpCall call;
  call.target = "/api/v1/" + path;
  WEFT_ASSIGN_OR_RETURN(const HttpReply reply, http_.stream(call, sink));
  return reply.status / 100 == 2 ? Status() : error_of(reply);
}

Status ApiClient::follow(const std::string& path,
                         const std::function<Status(const ServerEvent&)>& take) {
  std::string last;
  bool ended = false;
  for (int reconnects = 0;; ++reconnects) {
    EventParser parser;
    Status refused;  // by `take`
    HttpCall call;
    call.target = "/api/v1/" + path;
    call.headers.emplace_back("Accept", "text/event-stream");
    if (!last.empty()) call.headers.emplace_back("Last-Event-ID", last);
    const auto on_event = [&](const ServerEvent& event) {
      if (!event.id.empty()) last = event.id;
      ended = ended || event.type == "end";
      reconnects = 0;
      return refused = take(event);
    };
    const Result<HttpReply> reply =
        http_.stream(call, [&](std::string_view bytes) { return parser.feed(bytes, on_event); });
    if (!refused.ok()) return refused;
    if (ended) return Status();
    if (reply && reply->status / 100 != 2 && reply->status != 503) return error_of(*reply);
    if (reconnects >= kReconnectsMax) {
      return reply ? Status(Code::kUnavailable, "the stream broke off") : reply.error();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(reconnects == 0 ? 50 : 1000));
  }
}

Result<proto::Job> ApiClient::job(const std::string& id) {
  proto::Job job;
  WEFT_RETURN_IF_ERROR(get("jobs/" + encoded(id), job));
  return job;
}

}  // namespace weft::cli
