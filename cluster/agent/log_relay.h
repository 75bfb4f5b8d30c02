// Sends what an attempt's processes on this node write to their logs, as it comes.
//
// Thread safety: the agent's thread. Invariants: 1. bytes go out in order, and at most
// kLogWindowBytes of a log beyond what the coordinator has acknowledged. 2. after a reconnect it
// goes on from what is acknowledged; after a restart of the agent from 0, and the first
// acknowledgement tells how far the coordinator is already. 3. it reads plain files of the ranks'
// user only and follows no link.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "proto/node.pb.h"

namespace weft {

inline constexpr int64_t kLogChunkBytes = 64 << 10;
inline constexpr int64_t kLogWindowBytes = 256 << 10;

class LogRelay {
 public:
  using Send = std::function<bool(const proto::NodeFrame&)>;
  LogRelay(proto::AttemptRef attempt, std::string folder, uid_t owner, std::vector<int> ranks,
           Send send);
  void poll();           // sends what is new
  void take(const proto::LogAck& ack);
  void reconnected();
  bool drained() const;  // nothing is unsent or unacknowledged

 private:
  struct Log {
    int64_t sent = 0, acknowledged = 0, size = 0;
  };
  std::string path_of(int rank) const;
  bool send_some(int rank, Log& log);

  const proto::AttemptRef attempt_;
  const std::string folder_;
  const uid_t owner_;
  const Send send_;
  std::map<int, Log> logs_;
};

}  // namespace weft
