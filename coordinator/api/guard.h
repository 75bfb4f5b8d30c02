// Who may speak to the API. Checked on every request and every method, before its body is read.
//
// Thread safety: const after construction. Ownership: copies what it needs; the token is kept only
// as its SHA-256. Invariants: 1. Host is a name this server is known by, so that a page that
// rebinds its DNS name to our address is refused. 2. A browser's Origin and Sec-Fetch-Site must say
// that the page came from this server. 3. A bearer token is always needed, also on loopback, and
// compared in constant time.
#pragma once

#include <string>
#include <vector>

#include "coordinator/api/http_types.h"

namespace weft::api {

class Guard {
 public:
  // `host_names`: further names or addresses, on any port (behind a proxy or a forwarded port),
  // beside localhost and the connection's own address, which go with its own port.
  Guard(const std::string& token, std::vector<std::string> host_names);

  Status check_origin(const Request& request) const;  // Host, Origin, Sec-Fetch-Site
  Status check_token(const Request& request) const;

 private:
  std::string token_digest_;
  std::vector<std::string> host_names_;
};

struct HostPort {
  std::string host;  // in lower case, without brackets; empty: malformed
  int port = 0;      // 0: none given
};
HostPort host_port_of(const std::string& header);

}  // namespace weft::api
