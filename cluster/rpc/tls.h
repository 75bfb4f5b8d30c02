// TLS 1.3 by a pre-shared key made from the cluster's secret. Internal to cluster/rpc.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>

namespace weft {

enum class TlsSide { kServer, kClient };
// The key is HMAC-SHA-256(secret, "weft agent channel 1").
std::shared_ptr<boost::asio::ssl::context> tls_context(TlsSide side, const std::string& secret);

}  // namespace weft
