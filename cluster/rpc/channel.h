// Length-prefixed protobuf frames between an agent and the coordinator, in order, both ways.
//
// Thread safety: send() from any thread; handlers run one at a time on the channel's executor
// thread. Ownership: shared; the transport keeps a channel alive until it is closed.
// Invariants: 1. frames arrive whole, in order, at most once. 2. on_close is called exactly once,
// and nothing is delivered after it. 3. a frame above the size limit closes the channel with an
// error.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "proto/base/status.h"
#include "proto/node.pb.h"

namespace weft {

class Channel {
 public:
  struct Handlers {
    std::function<void(proto::NodeFrame)> on_frame;
    std::function<void(Status why)> on_close;
  };
  virtual ~Channel() = default;
  virtual void start(Handlers handlers) = 0;   // once; nothing is delivered before
  // Queues a frame; false when the channel is closed. Never blocks.
  virtual bool send(const proto::NodeFrame& frame) = 0;
  virtual void close(Status why) = 0;
  virtual size_t queued_bytes() const = 0;     // sent but not yet written; for back-pressure
  virtual std::string peer() const = 0;        // for people
};

}  // namespace weft
