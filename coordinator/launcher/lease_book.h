// Who is connected, and until when each node's lease certainly runs. It stands apart from
// everything that is stored, so that a disk that stalls delays no answer to a heartbeat.
//
// Thread safety: every call from any thread; none waits for anything but this object's short mutex.
// Ownership: refers to the clock.
// Invariants:
// 1. A node's lease ends lease_seconds and a margin after its last hello or heartbeat was heard
// here (the agent counts from the sending, so its own end is earlier).
// 2. Once expire() has said that a lease is over, no heartbeat renews it: the node has to be
// admitted again.
// 3. Each hello and each heartbeat has one answer at most, in order: agents match them by order.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "proto/base/clock.h"
#include "proto/base/status.h"
#include "proto/node.pb.h"

namespace weft {

class LeaseBook {
 public:
  LeaseBook(const Clock& clock, double lease_seconds, std::string cluster);

  // ---- as frames arrive
  // The welcome of a node that is known and whose lease has not been called over; from now on
  // `session` is its connection. Nothing: the supervisor decides (admit).
  std::optional<proto::NodeFrame> hello(uint64_t session, const proto::NodeInfo& info);
  // The grant; nothing where the session is no node's connection.
  std::optional<proto::NodeFrame> beat(uint64_t session);
  void closed(uint64_t session);

  // ---- the supervisor's decisions
  // A node that the store knows from before; it has a whole lease to come back in.
  void recall(const std::string& name);
  // kAlreadyExists: another agent with this name is connected.
  Status check(uint64_t session, const proto::NodeInfo& info) const;
  proto::NodeFrame admit(uint64_t session, const proto::NodeInfo& info);
  bool holds(uint64_t session, const std::string& name) const;  // is the node's connection
  bool alive(const std::string& name) const;                    // connected, within its lease
  void forget(const std::string& name);                         // one whose lease is over
  bool expire(const std::string& name);  // true: the lease is over and stays so (invariant 2)
  // What the node may forget; its next grants say so.
  void revoke(const std::string& name, std::vector<proto::AttemptRef> attempts);

 private:
  using Time = Clock::Duration;
  struct Lease {
    uint64_t session = 0;  // 0: not connected
    std::string agent;     // the agent's process
    Time until{};
    bool over = false;
    std::vector<proto::AttemptRef> revoked;
  };
  bool may_take(const Lease& lease, uint64_t session, const proto::NodeInfo& info) const;
  proto::NodeFrame bind(Lease& lease, uint64_t session, const proto::NodeInfo& info);
  Time end() const;

  const Clock& clock_;
  const double lease_seconds_;
  const std::string cluster_;

  mutable std::mutex mutex_;               // guards the rest
  std::map<std::string, Lease> leases_;    // by node
  std::map<uint64_t, std::string> nodes_;  // by session
};

}  // namespace weft
