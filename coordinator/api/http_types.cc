#include "coordinator/api/http_types.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "proto/base/check.h"
#include "proto/json/writer.h"

namespace weft::api {
namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

Status no_such_path(const std::string& target) {
  return Status(Code::kNotFound, "no such path; GET /api/v1/openapi.json lists what there is")
      .with_value(target.substr(0, 200));
}

bool opaque_part(const std::string& part) {
  return !part.empty() && part != "." && part != ".." &&
         part.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

Status parse_query(std::string_view text, NameValues& query) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    WEFT_ASSIGN_OR_RETURN(std::string name, percent_decode(pair.substr(0, equals), true));
    const std::string_view rest = equals < pair.size() ? pair.substr(equals + 1) : "";
    WEFT_ASSIGN_OR_RETURN(std::string value, percent_decode(rest, true));
    query.emplace_back(std::move(name), std::move(value));
  }
  return Status();
}

}  // namespace

const std::string* find_value(const NameValues& pairs, std::string_view name) {
  for (const auto& [key, value] : pairs) {
    if (key == name) return &value;
  }
  return nullptr;
}

int count_values(const NameValues& pairs, std::string_view name) {
  return static_cast<int>(std::count_if(pairs.begin(), pairs.end(),
                                        [&](const auto& pair) { return pair.first == name; }));
}

const std::string& Request::parameter(std::string_view name) const {
  const std::string* value = find_value(parameters, name);
  WEFT_CHECK(value != nullptr, "the route has no parameter {}", name);
  return *value;
}

bool Request::wants_events() const {
  const std::string* accept = header("accept");
  return accept != nullptr && accept->find("text/event-stream") != std::string::npos;
}

Result<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      const int high = i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hex_value(text[i + 2]) : -1;
      if (high < 0 || low < 0) {
        return fail(Status(Code::kInvalidArgument, "malformed URL")
                        .with_value(std::string(text.substr(0, 200)))
                        .with_rule("'%' is followed by two hexadecimal digits"));
      }
      out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      out += plus_is_space && text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

Status parse_target(Request& request) {
  const std::string_view target = request.target;
  if (target.empty() || target[0] != '/' || target.find('#') != std::string_view::npos) {
    return Status(Code::kInvalidArgument, "malformed request target")
        .with_value(request.target.substr(0, 200))
        .with_rule("must start with '/'");
  }
  const size_t mark = std::min(target.find('?'), target.size());
  std::string_view path = target.substr(1, mark - 1);
  while (true) {
    const size_t end = std::min(path.find('/'), path.size());
    WEFT_ASSIGN_OR_RETURN(std::string part, percent_decode(path.substr(0, end), false));
    if (!opaque_part(part)) return no_such_path(request.target);
    request.path.push_back(std::move(part));
    if (end == path.size()) break;
    path.remove_prefix(end + 1);
  }
  return mark < target.size() ? parse_query(target.substr(mark + 1), request.query) : Status();
}

int http_status(Code code) {
  switch (code) {
    case Code::kOk:
      return 200;
    case Code::kInvalidArgument:
      return 400;
    case Code::kUnauthenticated:
      return 401;
    case Code::kPermissionDenied:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kAlreadyExists:
    case Code::kFailedPrecondition:
    case Code::kStale:
      return 409;
    case Code::kResourceExhausted:
      return 507;
    case Code::kUnavailable:
    case Code::kCancelled:
      return 503;
    case Code::kDeadlineExceeded:
      return 504;
    case Code::kCorruption:
    case Code::kInternal:
      return 500;
  }
  return 500;
}

Response error_response(const Status& status, const std::string& request_id, int http,
                        std::string_view code_text) {
  Response response;
  response.status = http != 0 ? http : http_status(status.code());
  response.body = fmt::format(
      "{{\"error\":{{\"code\":{},\"message\":{},\"field\":{},\"value\":{},\"rule\":{},\"line\":{},"
      "\"request_id\":{}}}}}\n",
      quote_json(code_text.empty() ? code_name(status.code()) : code_text),
      quote_json(status.message()), quote_json(status.field()), quote_json(status.value()),
      quote_json(status.rule()), status.line(), quote_json(request_id));
  if (response.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (response.status == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

Result<int64_t> query_int(const Request& request, std::string_view name, int64_t fallback,
                          int64_t min, int64_t max) {
  const std::string* text = find_value(request.query, name);
  if (text == nullptr) return fallback;
  int64_t value = 0;
  const char* end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, value);
  if (text->empty() || error != std::errc() || stop != end || value < min || value > max) {
    return fail(Status::invalid(std::string(name), *text,
                                fmt::format("must be a whole number from {} to {}", min, max)));
  }
  return value;
}

std::string query_text(const Request& request, std::string_view name) {
  const std::string* text = find_value(request.query, name);
  return text == nullptr ? std::string() : *text;
}

}  // namespace weft::api
