// The REST API as calls of values: JSON bodies, the server's errors as Status, live streams that
// are picked up again where they broke off.
//
// Thread safety: one thread. Ownership: owns its connection.
// Invariant: follow() hands each event on once, in order, also across reconnects.
#pragma once

#include <functional>
#include <string>

#include "coordinator/cli/event_parser.h"
#include "coordinator/cli/http_client.h"
#include "coordinator/cli/settings.h"
#include "proto/job.pb.h"

namespace google::protobuf {
class Message;
}

namespace weft::cli {

// A part of a path or a query value, percent-encoded.
std::string encoded(std::string_view text);

class ApiClient {
 public:
  explicit ApiClient(const Endpoint& endpoint);
  static Result<ApiClient> connect(const Settings& settings);

  // Paths are below /api/v1/. `into` may be null; so may `body`.
  Status get(const std::string& path, google::protobuf::Message& into);
  // All pages of a list whose pages have `next` and `more`, as one.
  template <typename Page>
  Status get_all(const std::string& path, Page& into) {
    Page page;
    do {
      const std::string next = page.next();
      page.Clear();
      WEFT_RETURN_IF_ERROR(get(path + "?limit=1000&after=" + encoded(next), page));
      into.MergeFrom(page);
    } while (page.more());
    into.clear_more();
    return {};
  }
  Status send(const std::string& method, const std::string& path,
              const google::protobuf::Message* body, google::protobuf::Message* into,
              const std::string& idempotency_key = "");
  Status put_bytes(const std::string& path, std::string bytes);
  Status download(const std::string& path, const std::function<Status(std::string_view)>& sink);
  // Reads a live stream until its `end` event (also handed on) or until `take` fails.
  Status follow(const std::string& path, const std::function<Status(const ServerEvent&)>& take);

  Result<proto::Job> job(const std::string& id);
  const Endpoint& endpoint() const { return endpoint_; }

 private:
  Endpoint endpoint_;
  HttpClient http_;
};

// The Status that an error answer tells, its request id with it.
Status error_of(const HttpReply& reply);

}  // namespace weft::cli
