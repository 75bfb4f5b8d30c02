// Channels over TCP: TLS 1.3 with a pre-shared key derived from the cluster's secret, so both ends
// prove that they know it and nothing travels in clear. One io thread a server and a dialled
// channel.
//
// Thread safety: every call from any thread. Ownership: a server owns its io thread; channels
// outlive it closed. Invariants: 1. on_accept is called after the peer has proved itself. 2. a
// peer that does not know the secret learns nothing but that the handshake failed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "cluster/rpc/channel.h"

namespace weft {

inline constexpr size_t kFrameBytesMax = size_t{64} << 20;

class RpcServer {
 public:
  using OnAccept = std::function<void(std::shared_ptr<Channel>)>;
  virtual ~RpcServer() = default;  // closes every channel it has accepted
  virtual int port() const = 0;
};

// port 0: any free one. Errors: address in use, address not of this machine; both name the field
// "rpc".
Result<std::unique_ptr<RpcServer>> listen(const std::string& address, int port,
                                          const std::string& secret,
                                          RpcServer::OnAccept on_accept);

// Blocks until the handshake is done. Errors: kUnavailable (nobody there, timeout),
// kUnauthenticated (the peer does not know the same secret).
Result<std::shared_ptr<Channel>> connect(const std::string& host, int port,
                                         const std::string& secret, double timeout_seconds = 10);

// Two ends in memory: what one sends, the other's handler gets on a thread of the pair.
std::pair<std::shared_ptr<Channel>, std::shared_ptr<Channel>> make_channel_pair();

}  // namespace weft
