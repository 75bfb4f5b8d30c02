// What flows back from a rank, and what it asks for: the caller of the trainer supplies it. In a
// job it is the connection to the node's agent (cluster/process), in a test a recorder in memory.
//
// Thread safety: every call may come from the compute thread and from the checkpoint's writer
// thread. Ownership: the caller keeps it alive until the trainer has returned. Invariants: 1.
// send() keeps the message until it is durable at the coordinator, over reconnects too.
// 2. put_chunk returns ok only once the chunk is durable. 3. take_control gives each request once.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "proto/base/status.h"
#include "proto/train.pb.h"

namespace weft {

class Progress {
 public:
  virtual ~Progress() = default;

  // Queues the message (its job, attempt, rank and sequence are filled in) and returns at once;
  // blocks only when very many messages wait. kStale: this attempt is no longer the job's; leave at
  // once.
  virtual Status send(proto::RankEnvelope message) = 0;
  // Waits until everything sent is durable. The Status of the first message that was refused, if
  // any.
  virtual Status flush() = 0;
  // A pending request of the user, if any.
  virtual std::optional<proto::Control> take_control() = 0;

  // A trace that was asked for (trace_steps > 0), each once; and what it came to, which may get
  // lost.
  virtual std::optional<proto::Inspect> take_trace_request() { return std::nullopt; }
  virtual void send_trace(proto::RankTrace /*trace*/) {}

  // Content-addressed bytes; `hash` is their SHA-256. Blocks until durable.
  virtual Status put_chunk(const std::string& hash, std::string_view bytes) = 0;
  virtual Result<std::string> get_chunk(const std::string& hash) = 0;
};

}  // namespace weft
