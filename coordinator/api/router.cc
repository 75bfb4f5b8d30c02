#include "coordinator/api/router.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "proto/base/check.h"

namespace weft::api {
namespace {

std::vector<std::string> split_pattern(const std::string& pattern) {
  std::vector<std::string> parts;
  size_t at = 1;
  while (at <= pattern.size()) {
    const size_t end = std::min(pattern.find('/', at), pattern.size());
    parts.push_back(pattern.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

// In lower case, without white space and quotes: "application/json;charset=utf-8".
std::string plain_type(const std::string& header) {
  std::string type;
  for (const char c : header) {
    if (c != ' ' && c != '\t' && c != '"') {
      type += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  return type;
}

std::string known_names(const Route& route) {
  std::string names;
  for (const QueryParameter& parameter : route.query) {
    names += (names.empty() ? "" : ", ") + parameter.name;
  }
  return names.empty() ? "this path takes no query parameters" : "must be one of " + names;
}

Status check_query(const Route& route, const Request& request) {
  std::set<std::string> seen;
  for (const auto& [name, value] : request.query) {
    const bool known = std::any_of(route.query.begin(), route.query.end(),
                                   [&](const QueryParameter& p) { return p.name == name; });
    if (!known) return Status::invalid(name, value, known_names(route));
    if (name != "label" && !seen.insert(name).second) {
      return Status::invalid(name, value, "may be given once");
    }
  }
  return Status();
}

// Status 0: fine.
Response check_content_type(const Route& route, const Request& request) {
  Response fine;
  fine.status = 0;
  const std::string* header = request.header("content-type");
  const std::string type = header == nullptr ? "" : plain_type(*header);
  if (route.body == BodyKind::kNone) return fine;
  if (route.body_optional && header == nullptr) return fine;  // and has none, as call() sees
  const bool json = route.body == BodyKind::kJson;
  const std::string wanted = json ? "application/json" : "application/octet-stream";
  const std::string* encoding = request.header("content-encoding");
  const bool known = type == wanted || (json && type == wanted + ";charset=utf-8");
  if (known && count_values(request.headers, "content-type") == 1 && encoding == nullptr) {
    return fine;
  }
  Status status(Code::kInvalidArgument, "this body is of another type than this path takes");
  if (encoding != nullptr) {
    status.with_field("Content-Encoding").with_value(*encoding).with_rule("must be absent");
  } else {
    status.with_field("Content-Type")
        .with_value(header == nullptr ? "" : header->substr(0, 200))
        .with_rule("must be " + wanted + (json ? ", in UTF-8, once" : ", once"));
  }
  return error_response(status, request.request_id, 415, "unsupported_media_type");
}

Response method_response(const Request& request, const std::set<std::string>& methods) {
  std::string allow;
  for (const std::string& method : methods) allow += (allow.empty() ? "" : ", ") + method;
  Response response;
  if (request.method == "OPTIONS") {
    response.status = 204;
    response.content_type.clear();
  } else {
    response = error_response(Status(Code::kInvalidArgument, "this path has no such method")
                                  .with_field("method")
                                  .with_value(request.method)
                                  .with_rule("must be one of " + allow),
                              request.request_id, 405, "method_not_allowed");
  }
  response.headers.emplace_back("Allow", allow);
  return response;
}

}  // namespace

void Router::add(Route route) {
  for (const Route& other : routes_) {
    WEFT_CHECK(other.method != route.method || other.pattern != route.pattern, "two routes {} {}",
               route.method, route.pattern);
  }
  rows_.push_back(Row{split_pattern(route.pattern)});
  routes_.push_back(std::move(route));
}

bool Router::fits(const Row& row, const Request& request, NameValues& parameters) {
  if (row.parts.size() != request.path.size()) return false;
  for (size_t i = 0; i < row.parts.size(); ++i) {
    const std::string& part = row.parts[i];
    if (part.front() == '{') {
      parameters.emplace_back(part.substr(1, part.size() - 2), request.path[i]);
    } else if (part != request.path[i]) {
      return false;
    }
  }
  return true;
}

bool Router::is_open(const Request& request) const {
  for (size_t i = 0; i < rows_.size(); ++i) {
    NameValues unused;
    const bool method = routes_[i].method == request.method ||
                        (routes_[i].method == "GET" && request.method == "HEAD");
    if (routes_[i].open && method && fits(rows_[i], request, unused)) return true;
  }
  return false;
}

Response Router::call(const Route& route, const Request& request) {
  const bool typed = route.body != BodyKind::kNone && request.header("content-type") != nullptr;
  if (!typed && !request.body.empty()) {
    Status status(Code::kInvalidArgument, "this request takes no body");
    if (route.body != BodyKind::kNone) {
      status =
          Status::invalid("Content-Type", "", "must be application/json where there is a body");
    }
    return error_response(status, request.request_id);
  }
  Result<Response> response = route.handler(request);
  if (!response) return error_response(response.error(), request.request_id);
  return std::move(*response);
}

Router::Match Router::match(Request& request) const {
  std::set<std::string> methods;
  const std::string method = request.method == "HEAD" ? "GET" : request.method;
  for (size_t i = 0; i < rows_.size(); ++i) {
    NameValues parameters;
    if (!fits(rows_[i], request, parameters)) continue;
    const Route& route = routes_[i];
    methods.insert(route.method);
    if (route.method == "GET") methods.insert("HEAD");
    methods.insert("OPTIONS");
    if (route.method != method) continue;
    Match match;
    if (Status status = check_query(route, request); !status.ok()) {
      match.refusal = error_response(status, request.request_id);
      return match;
    }
    match.refusal = check_content_type(route, request);
    if (match.refusal.status != 0) return match;
    request.parameters = std::move(parameters);
    match.route = &route;
    return match;
  }
  Match match;
  if (!methods.empty()) {
    match.refusal = method_response(request, methods);
  } else {
    match.refusal = error_response(
        Status(Code::kNotFound, "no such path; GET /api/v1/openapi.json lists what there is")
            .with_value(request.target.substr(0, 200)),
        request.request_id);
  }
  return match;
}

}  // namespace weft::api
