#include "coordinator/launcher/lease_book.h"

#include <algorithm>
#include <chrono>

namespace weft {

LeaseBook::LeaseBook(const Clock& clock, double lease_seconds, std::string cluster)
    : clock_(clock), lease_seconds_(lease_seconds), cluster_(std::move(cluster)) {}

LeaseBook::Time LeaseBook::end() const {
  const double margin = std::max(1.0, lease_seconds_ / 10);
  return clock_.monotonic() +
         std::chrono::duration_cast<Time>(std::chrono::duration<double>(lease_seconds_ + margin));
}

// The same agent before its old connection was seen to end, or a name that nobody uses now.
bool LeaseBook::may_take(const Lease& lease, uint64_t session, const proto::NodeInfo& info) const {
  return lease.session == 0 || lease.session == session || lease.agent == info.session() ||
         clock_.monotonic() >= lease.until;
}

proto::NodeFrame LeaseBook::bind(Lease& lease, uint64_t session, const proto::NodeInfo& info) {
  nodes_.erase(lease.session);
  nodes_[session] = info.name();
  lease.session = session;
  lease.agent = info.session();
  lease.until = end();
  lease.over = false;
  proto::NodeFrame frame;
  frame.mutable_welcome()->set_lease_seconds(lease_seconds_);
  frame.mutable_welcome()->set_cluster(cluster_);
  return frame;
}

std::optional<proto::NodeFrame> LeaseBook::hello(uint64_t session, const proto::NodeInfo& info) {
  std::lock_guard lock(mutex_);
  auto it = leases_.find(info.name());
  if (it == leases_.end() || it->second.over || !may_take(it->second, session, info)) return {};
  return bind(it->second, session, info);
}

std::optional<proto::NodeFrame> LeaseBook::beat(uint64_t session) {
  std::lock_guard lock(mutex_);
  auto it = nodes_.find(session);
  if (it == nodes_.end()) return {};
  Lease& lease = leases_.at(it->second);
  lease.until = end();
  proto::NodeFrame frame;
  frame.mutable_lease()->set_lease_seconds(lease_seconds_);
  for (const auto& ref : lease.revoked) *frame.mutable_lease()->add_revoked() = ref;
  return frame;
}

void LeaseBook::closed(uint64_t session) {
  std::lock_guard lock(mutex_);
  auto it = nodes_.find(session);
  if (it == nodes_.end()) return;
  leases_.at(it->second).session = 0;
  nodes_.erase(it);
}

void LeaseBook::recall(const std::string& name) {
  std::lock_guard lock(mutex_);
  leases_[name].until = end();
}

Status LeaseBook::check(uint64_t session, const proto::NodeInfo& info) const {
  std::lock_guard lock(mutex_);
  auto it = leases_.find(info.name());
  if (it == leases_.end() || may_take(it->second, session, info)) return {};
  return Status(Code::kAlreadyExists, "another agent with this name is connected")
      .with_field("name")
      .with_value(info.name())
      .with_rule("give each node a name of its own (--name)");
}

proto::NodeFrame LeaseBook::admit(uint64_t session, const proto::NodeInfo& info) {
  std::lock_guard lock(mutex_);
  return bind(leases_[info.name()], session, info);
}

bool LeaseBook::holds(uint64_t session, const std::string& name) const {
  std::lock_guard lock(mutex_);
  auto it = leases_.find(name);
  return it != leases_.end() && it->second.session == session;
}

bool LeaseBook::alive(const std::string& name) const {
  std::lock_guard lock(mutex_);
  auto it = leases_.find(name);
  return it != leases_.end() && it->second.session != 0 && clock_.monotonic() < it->second.until;
}

void LeaseBook::forget(const std::string& name) {
  std::lock_guard lock(mutex_);
  leases_.erase(name);
}

bool LeaseBook::expire(const std::string& name) {
  std::lock_guard lock(mutex_);
  Lease& lease = leases_[name];
  if (clock_.monotonic() < lease.until) return false;
  lease.over = true;
  nodes_.erase(lease.session);
  lease.session = 0;
  return true;
}

void LeaseBook::revoke(const std::string& name, std::vector<proto::AttemptRef> attempts) {
  std::lock_guard lock(mutex_);
  leases_[name].revoked = std::move(attempts);
}

}  // namespace weft
