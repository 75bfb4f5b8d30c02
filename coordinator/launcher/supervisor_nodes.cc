// Nodes: hellos, heartbeats, leases, and which attempts' processes they still have.
#include <fmt/format.h>

#include <algorithm>

#include "coordinator/launcher/supervisor.h"

namespace weft {
namespace {

constexpr int kSlotsMax = 4096;

bool good_name(const std::string& name) {
  if (name.empty() || name.size() > 64 || name[0] == '.' || name[0] == '-') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

template <typename Refs>
std::set<std::pair<std::string, int32_t>> keys_of(const Refs& running) {
  std::set<std::pair<std::string, int32_t>> keys;
  for (const proto::AttemptRef& ref : running) keys.emplace(ref.job(), ref.attempt());
  return keys;
}

// Of those listed, the ones whose processes are not over: "job-x/2" in the node's attempts.
std::set<std::pair<std::string, int32_t>> alive_of(
    const proto::NodeInfo& info, const std::set<std::pair<std::string, int32_t>>& listed) {
  const std::set<std::string> names(info.attempts().begin(), info.attempts().end());
  std::set<std::pair<std::string, int32_t>> alive;
  for (const auto& key : listed) {
    if (names.contains(key.first + "/" + std::to_string(key.second))) alive.insert(key);
  }
  return alive;
}

Status check_node(const proto::NodeInfo& info) {
  if (!good_name(info.name())) {
    return Status::invalid("name", info.name().substr(0, 64),
                           "must be 1 to 64 letters, digits, '.', '_' or '-'");
  }
  if (info.slots() < 1 || info.slots() > kSlotsMax) {
    return Status::invalid("slots", std::to_string(info.slots()),
                           "must be 1 to " + std::to_string(kSlotsMax));
  }
  return {};
}

}  // namespace

void Supervisor::recall() {
  for (proto::NodeInfo& info : parts_.store.nodes()) {
    leases_.recall(info.name());
    Node& node = nodes_[info.name()];
    node.info = std::move(info);
  }
  for (const JobPointer& job : parts_.store.jobs()) {
    if (job->attempt() == 0 || is_finished(job->state())) continue;
    const AttemptKey key{job->id(), job->attempt()};
    Active active{.key = key, .since = now()};
    for (const auto& placed : job->placement().nodes()) {
      active.nodes.push_back(placed.name());
      // Told to start before: a node that does not list it any more has lost it.
      active.parts[placed.name()].prepared = job->state() != proto::JOB_STATE_STARTING;
      // Stored as lost, but not yet what follows for its attempt: it is found lost once more.
      auto node = nodes_.find(placed.name());
      if (node != nodes_.end()) node->second.info.set_state(proto::NODE_STATE_READY);
    }
    active_[job->id()] = std::move(active);
    if (!is_active(job->state())) retire(key, true);
  }
}

// A node that was stored before stays known also while the disk is full.
Status Supervisor::keep_node(const proto::NodeInfo& info) {
  Status status = parts_.store.put_node(info, true);
  if (status.ok() || !nodes_.contains(info.name())) return status;
  parts_.log.warn("node {}: {}", info.name(), status.to_string());
  return parts_.store.put_node(info, false);
}

void Supervisor::take_hello(uint64_t session, const proto::AgentHello& hello, bool answered) {
  Status status = check_node(hello.node());
  if (status.ok() && !answered) status = leases_.check(session, hello.node());
  if (!status.ok()) return refuse(session, status.to_string());
  const std::string name = hello.node().name();
  if (answered && !leases_.holds(session, name)) {
    return refuse(session, "replaced by a newer connection");
  }
  proto::NodeInfo info = hello.node();
  info.set_state(proto::NODE_STATE_READY);
  info.set_last_seen_ms(parts_.clock.wall_ms());
  auto known = nodes_.find(name);
  info.set_joined_ms(known == nodes_.end() ? parts_.clock.wall_ms()
                                           : known->second.info.joined_ms());
  if (status = keep_node(info); !status.ok()) {
    return refuse(session, "the node cannot be stored: " + status.to_string());
  }
  Node& node = nodes_[name];
  if (node.session != 0 && node.session != session) {
    if (auto old = sessions_.find(node.session); old != sessions_.end()) {
      old->second.channel->close({Code::kUnavailable, "replaced by a newer connection"});
      sessions_.erase(old);
    }
  }
  node.info = std::move(info);
  node.session = session;
  Session& connected = sessions_.at(session);
  connected.node = name;
  parts_.log.info("node {} with {} slots from {}", name, hello.node().slots(),
                  connected.channel->peer());
  if (!answered) connected.channel->send(leases_.admit(session, hello.node()));
  const auto listed = keys_of(hello.running());
  compare_running(name, listed, alive_of(hello.node(), listed), true);
}

void Supervisor::take_heartbeat(const std::string& name, const proto::Heartbeat& heartbeat) {
  Node& node = nodes_.at(name);
  node.info.set_last_seen_ms(parts_.clock.wall_ms());
  node.info.set_disk_free_bytes(heartbeat.node().disk_free_bytes());
  node.info.set_disk_bytes(heartbeat.node().disk_bytes());
  *node.info.mutable_attempts() = heartbeat.node().attempts();
  if (Status status = parts_.store.put_node(node.info, false); !status.ok()) {
    parts_.log.warn("node {}: {}", name, status.to_string());
  }
  for (const proto::AttemptNow& told : heartbeat.now()) {
    Active* active = find_active(told.job(), told.attempt());
    if (active == nullptr || !active->parts.contains(name)) continue;
    if (parts_.inspector != nullptr) parts_.inspector->heard(told);
    for (const proto::RankNow& rank : told.ranks()) active->watchdog.hear(rank, now());
  }
  const auto listed = keys_of(heartbeat.running());
  const auto alive = alive_of(heartbeat.node(), listed);
  compare_running(name, listed, alive, false);
  leases_.revoke(name, revoked(name, listed, alive));
}

// What the node has, against what it should have.
void Supervisor::compare_running(const std::string& name, const std::set<AttemptKey>& listed,
                                 const std::set<AttemptKey>& alive, bool hello) {
  for (auto& [job, active] : active_) {
    auto it = active.parts.find(name);
    if (it == active.parts.end() || it->second.gone) continue;
    Part& part = it->second;
    if (listed.contains(active.key)) {
      part.seen = true;
      part.absent_since = Time(-1);
      const auto daemon = active.daemons.find(name);
      if (hello && daemon != active.daemons.end()) send_to(name, daemon->second);
      if (hello && active.start_sent && active.nodes.front() == name) {
        const JobPointer now_job = parts_.store.find(job);
        if (now_job && now_job->state() == proto::JOB_STATE_STARTING) active.start_sent = false;
      }
    } else if (part.seen || part.prepared) {
      if (part.absent_since.count() < 0) part.absent_since = now();
    } else if (hello) {
      send_prepare(active, name);
    }
  }
  for (auto it = leaving_.begin(); it != leaving_.end();) {
    const AttemptKey key = it->first;
    if (!alive.contains(key)) it->second.erase(name);
    it = it->second.empty() ? leaving_.erase(it) : std::next(it);
  }
  // Processes of an attempt that nothing here knows of: the node holds them until they are gone.
  for (const AttemptKey& key : alive) {
    if (auto it = active_.find(key.first); it != active_.end() && it->second.key == key) continue;
    if (leaving_[key].contains(name)) continue;
    Leaving& left = leaving_[key][name];
    for (int slot = 0; slot < nodes_.at(name).info.slots(); ++slot) left.slots.push_back(slot);
    left.since = left.stop_at = now();
  }
}

// What the node may forget: everything that is neither active nor still leaving.
std::vector<proto::AttemptRef> Supervisor::revoked(const std::string& name,
                                                   const std::set<AttemptKey>& listed,
                                                   const std::set<AttemptKey>& alive) const {
  std::vector<proto::AttemptRef> refs;
  for (const AttemptKey& key : listed) {
    if (auto it = active_.find(key.first); it != active_.end() && it->second.key == key) continue;
    auto it = leaving_.find(key);
    const bool ends_by_itself =
        it != leaving_.end() && it->second.contains(name) && it->second.at(name).stop_at > now();
    if (ends_by_itself && alive.contains(key)) continue;
    proto::AttemptRef& ref = refs.emplace_back();
    ref.set_job(key.first);
    ref.set_attempt(key.second);
  }
  return refs;
}

void Supervisor::take_exit(const std::string& name, const proto::AttemptExit& exit) {
  const AttemptKey key{exit.attempt().job(), exit.attempt().attempt()};
  if (Active* active = find_active(key.first, key.second)) {
    auto part = active->parts.find(name);
    if (part == active->parts.end() || part->second.gone) return;
    part->second.gone = true;
    part->second.exit = exit;
    if (active->first_exit.count() < 0) active->first_exit = now();
    return;
  }
  if (auto it = leaving_.find(key); it != leaving_.end()) {
    it->second.erase(name);
    if (it->second.empty()) leaving_.erase(it);
  }
}

void Supervisor::check_leases() {
  for (auto& [name, node] : nodes_) {
    if (node.info.state() == proto::NODE_STATE_READY && leases_.expire(name)) node_lost(node);
  }
  std::erase_if(nodes_, [&](const auto& each) {
    const auto& [name, node] = each;
    const bool lost = node.info.state() == proto::NODE_STATE_LOST && node.session == 0;
    if (!lost || parts_.store.has_node(name)) return false;
    leases_.forget(name);
    return true;
  });
  std::vector<uint64_t> silent;
  for (const auto& [id, session] : sessions_) {
    if (session.node.empty() && now() - session.since > seconds(options_.hello_seconds)) {
      silent.push_back(id);
    }
  }
  for (uint64_t id : silent) refuse(id, "no hello came in time");
}

void Supervisor::node_lost(Node& node) {
  const std::string name = node.info.name();
  proto::NodeInfo info = node.info;
  info.set_state(proto::NODE_STATE_LOST);
  info.clear_attempts();
  if (Status status = parts_.store.put_node(info, true); !status.ok()) {
    parts_.log.warn("node {} is lost and that cannot be stored: {}", name, status.to_string());
    return;  // again at the next step
  }
  node.info = std::move(info);
  parts_.log.warn("node {} is lost: nothing was heard from it for a whole lease", name);
  if (const uint64_t session = std::exchange(node.session, 0); session != 0) {
    refuse(session, "the lease has run out; connect again");
  }
  for (auto& [job, active] : active_) {
    auto part = active.parts.find(name);
    if (part == active.parts.end() || part->second.gone) continue;
    part->second.gone = true;
    part->second.exit.set_exit_code(1);
    part->second.exit.set_message("node " + name + " was lost");
    active.first_exit = now() - seconds(options_.settle_seconds);  // nothing more will come
  }
  for (auto it = leaving_.begin(); it != leaving_.end();) {
    it->second.erase(name);
    it = it->second.empty() ? leaving_.erase(it) : std::next(it);
  }
}

void Supervisor::check_leaving() {
  for (auto& [key, parts] : leaving_) {
    for (auto& [name, left] : parts) {
      auto node = nodes_.find(name);
      if (node == nodes_.end() || node->second.session == 0 || now() < left.stop_at) continue;
      if (left.told_session == node->second.session) continue;
      proto::NodeFrame frame;
      frame.mutable_stop()->mutable_attempt()->set_job(key.first);
      frame.mutable_stop()->mutable_attempt()->set_attempt(key.second);
      frame.mutable_stop()->set_why("this attempt is over");
      if (send_to(name, frame)) left.told_session = node->second.session;
    }
  }
}

}  // namespace weft
