#include "coordinator/api/guard.h"

#include <algorithm>
#include <cctype>

#include "proto/base/hash.h"

namespace weft::api {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

bool all_digits(const std::string& text) {
  return !text.empty() && text.size() <= 5 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Status refused(std::string field, const std::string& value, std::string rule) {
  return Status(Code::kPermissionDenied, "request refused")
      .with_field(std::move(field))
      .with_value(value.substr(0, 200))
      .with_rule(std::move(rule));
}

}  // namespace

HostPort host_port_of(const std::string& header) {
  const std::string text = lower(header);
  const bool bracket = !text.empty() && text[0] == '[';
  const size_t end = bracket ? text.find(']') : text.find(':');
  if (bracket && end == std::string::npos) return {};
  HostPort made;
  made.host = bracket ? text.substr(1, end - 1) : text.substr(0, end);
  const std::string rest = end == std::string::npos ? "" : text.substr(end + (bracket ? 1 : 0));
  if (rest.empty()) return made;
  if (rest[0] != ':' || !all_digits(rest.substr(1))) return {};
  made.port = std::stoi(rest.substr(1));
  return made;
}

Guard::Guard(const std::string& token, std::vector<std::string> host_names)
    : token_digest_(sha256_hex(token)), host_names_(std::move(host_names)) {
  for (std::string& name : host_names_) name = lower(name);
}

Status Guard::check_origin(const Request& request) const {
  const std::string* host = request.header("host");
  if (host == nullptr || count_values(request.headers, "host") != 1) {
    return Status(Code::kInvalidArgument, "malformed request")
        .with_field("Host")
        .with_rule("exactly one Host header");
  }
  const auto [name, port] = host_port_of(*host);
  const bool own = name == "localhost" || name == "127.0.0.1" || name == "::1" ||
                   name == lower(request.local_address);
  const bool own_port = port == 0 || port == request.local_port;
  const bool given = std::find(host_names_.begin(), host_names_.end(), name) != host_names_.end();
  if (name.empty() || !(given || (own && own_port))) {
    return refused(
        "Host", *host,
        "must name this server and its port; a name given with --host-name may have any port");
  }
  if (const std::string* origin = request.header("origin")) {
    if (count_values(request.headers, "origin") != 1 ||
        lower(*origin) != "http://" + lower(*host)) {
      return refused("Origin", *origin, "pages of other sites may not use this API");
    }
  }
  if (const std::string* site = request.header("sec-fetch-site")) {
    if (count_values(request.headers, "sec-fetch-site") != 1 ||
        (*site != "same-origin" && *site != "none")) {
      return refused("Sec-Fetch-Site", *site, "pages of other sites may not use this API");
    }
  }
  return Status();
}

Status Guard::check_token(const Request& request) const {
  const std::string* header = request.header("authorization");
  constexpr std::string_view kScheme = "Bearer ";
  if (header == nullptr || count_values(request.headers, "authorization") != 1 ||
      header->size() <= kScheme.size() || lower(header->substr(0, kScheme.size())) != "bearer ") {
    return Status(Code::kUnauthenticated, "a token is needed")
        .with_field("Authorization")
        .with_rule("send 'Authorization: Bearer TOKEN'; 'weft token' says where the token is kept");
  }
  if (!equal_in_constant_time(sha256_hex(header->substr(kScheme.size())), token_digest_)) {
    return Status(Code::kUnauthenticated, "the token is not valid here")
        .with_field("Authorization")
        .with_rule("'weft token' says where this cluster's token is kept");
  }
  return Status();
}

}  // namespace weft::api
