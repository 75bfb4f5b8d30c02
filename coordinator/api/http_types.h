// A REST request and its answer as plain values: no HTTP library stands behind these types, so that
// only listener.cc and session.cc are compiled against one.
//
// Thread safety: values; a BodyStream is used by one thread at a time. Ownership: values own what
// they hold. Invariants: 1. `path` is percent-decoded exactly once; no part of it is empty, "." or
// "..", or holds
// '/', '\' or NUL. 2. Header names are lower case. 3. Every answer carries X-Request-Id; every
// error has the one shape of proto/api.proto's ErrorBody.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/base/status.h"

namespace weft::api {

using NameValues = std::vector<std::pair<std::string, std::string>>;

// First value of `name`, or nullptr.
const std::string* find_value(const NameValues& pairs, std::string_view name);
int count_values(const NameValues& pairs, std::string_view name);

struct Request {
  std::string method;
  std::string target;             // as received
  std::vector<std::string> path;  // decoded parts
  NameValues query;               // decoded
  NameValues headers;             // names in lower case
  NameValues parameters;          // {id} of the route's pattern
  std::string body;
  std::string request_id;
  std::string local_address;  // of this connection, without the port
  int local_port = 0;

  const std::string& parameter(std::string_view name) const;  // of the route's pattern
  const std::string* header(std::string_view name) const { return find_value(headers, name); }
  bool wants_events() const;  // Accept: text/event-stream
};

// The body of an answer that is made while it is sent. Its reader asks for the next piece only once
// the last one is written, so a slow client costs one piece of memory.
class BodyStream {
 public:
  enum class Next {
    kMore,  // something was appended; ask again
    kWait,  // nothing new yet; ask again a little later
    kEnd,   // complete (something may have been appended)
  };
  virtual ~BodyStream() = default;
  virtual Result<Next> read(std::string& out) = 0;
  // What to send when nothing else was for a while; empty: nothing.
  virtual std::string heartbeat() const { return ""; }
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  NameValues headers;
  std::unique_ptr<BodyStream> stream;   // in place of `body`
  std::optional<int64_t> stream_bytes;  // Content-Length of the stream, where it is known
  bool close = false;                   // close the connection afterwards
};

// Splits and decodes `request.target` into path and query.
Status parse_target(Request& request);
Result<std::string> percent_decode(std::string_view text, bool plus_is_space);

int http_status(Code code);
// The error answer of `status`; `http` 0: by its code. `code_text` empty: the code's own name.
Response error_response(const Status& status, const std::string& request_id, int http = 0,
                        std::string_view code_text = "");

// Query values. A missing name gives `fallback`; a value that is no number in [min, max] is
// invalid.
Result<int64_t> query_int(const Request& request, std::string_view name, int64_t fallback,
                          int64_t min, int64_t max);
std::string query_text(const Request& request, std::string_view name);

}  // namespace weft::api
