// Length-prefixed protobuf frames over a unix socket, on the caller's io_context: between agent and
// shepherd, remote shell and shepherd, rank and agent (the rank's end is
// cluster/process/agent_link).
//
// Thread safety: the io_context's one thread. Ownership: shared; a channel keeps itself alive
// while it is open. Invariants: 1. frames arrive whole and in order. 2. on_close is called exactly
// once, unless the channel was closed by its owner before start, and nothing is delivered after
// it. 3. a frame above the limit closes the channel.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>

#include "proto/base/status.h"

namespace google::protobuf {
class MessageLite;
}

namespace weft {

inline constexpr size_t kLocalFrameBytesMax = size_t{64} << 20;
inline constexpr size_t kSocketPathBytesMax = 107;

class LocalChannel {
 public:
  virtual ~LocalChannel() = default;
  virtual void start(std::function<void(std::string)> on_frame,
                     std::function<void()> on_close) = 0;
  virtual bool send(const google::protobuf::MessageLite& frame) = 0;
  virtual void close() = 0;            // what is queued still goes out
  virtual uid_t peer_uid() const = 0;  // as the kernel tells it
};

class LocalServer {
 public:
  virtual ~LocalServer() = default;  // no longer listens; removes the path
};

// Replaces a socket of that path that nobody listens on any more. `owner`: who may connect beside
// root and the listener. Error: the path is too long, its folder is not writable.
Result<std::unique_ptr<LocalServer>> listen_local(
    boost::asio::io_context& io, const std::string& path, uid_t owner,
    std::function<void(std::shared_ptr<LocalChannel>)> on_accept);

// kUnavailable: nobody listens there.
Result<std::shared_ptr<LocalChannel>> connect_local(boost::asio::io_context& io,
                                                    const std::string& path);

}  // namespace weft
