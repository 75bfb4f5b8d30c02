#include "tests/cluster/agent/fake_coordinator.h"

#include <chrono>

#include "proto/base/check.h"
#include "proto/base/hash.h"

namespace weft::testing {

std::string name_of(const proto::AttemptRef& ref) {
  return ref.job() + "/" + std::to_string(ref.attempt());
}

FakeCoordinator::FakeCoordinator(std::string secret) {
  auto server = listen("127.0.0.1", 0, secret, [this](std::shared_ptr<Channel> channel) {
    auto node = std::make_shared<std::string>();
    channel->start({[this, node, weak = std::weak_ptr(channel)](proto::NodeFrame frame) {
                      if (const auto from = weak.lock()) take(from, node, frame);
                    },
                    [](const Status&) {}});
  });
  WEFT_CHECK(server.has_value(), "{}", server.error().to_string());
  server_ = std::move(*server);
}

bool FakeCoordinator::wait(const std::function<bool()>& holds) {
  std::unique_lock lock(mutex);
  return changed_.wait_for(lock, std::chrono::minutes(1), holds);
}

bool FakeCoordinator::send(const std::string& node, const proto::NodeFrame& frame) {
  const std::lock_guard lock(mutex);
  const auto found = nodes_.find(node);
  return found != nodes_.end() && found->second->send(frame);
}

void FakeCoordinator::revoke(const proto::AttemptRef& ref) {
  const std::lock_guard lock(mutex);
  revoked_.push_back(ref);
}

void FakeCoordinator::grant(bool on) {
  const std::lock_guard lock(mutex);
  granting_ = on;
}

bool FakeCoordinator::shorten_leases(double seconds) {
  std::unique_lock lock(mutex);
  lease_seconds_ = seconds;
  const int64_t before = leases_;
  return changed_.wait_for(lock, std::chrono::minutes(1), [&] { return leases_ > before; });
}

int FakeCoordinator::hellos_of(const std::string& node) {
  const std::lock_guard lock(mutex);
  return hellos[node];
}

void FakeCoordinator::hang_up(const std::string& node) {
  const std::lock_guard lock(mutex);
  nodes_[node]->close(Status(Code::kUnavailable, "test"));
}

std::string FakeCoordinator::add_chunk(const std::string& bytes) {
  const std::lock_guard lock(mutex);
  const std::string hash = sha256_hex(bytes);
  chunks[hash] = bytes;
  return hash;
}

void FakeCoordinator::answer_beat(const std::shared_ptr<Channel>& from) {
  if (!granting_) return;
  proto::NodeFrame frame;
  frame.mutable_lease()->set_lease_seconds(lease_seconds_);
  for (const auto& ref : revoked_) *frame.mutable_lease()->add_revoked() = ref;
  from->send(frame);
  ++leases_;
}

void FakeCoordinator::take(const std::shared_ptr<Channel>& from,
                           const std::shared_ptr<std::string>& node,
                           const proto::NodeFrame& frame) {
  const std::lock_guard lock(mutex);
  const auto note = [&](const auto& list) {
    auto& names = running[*node];
    names.clear();
    for (const auto& ref : list) names.insert(name_of(ref));
  };
  switch (frame.body_case()) {
    case proto::NodeFrame::kHello: {
      *node = frame.hello().node().name();
      nodes_[*node] = from;
      ++hellos[*node];
      note(frame.hello().running());
      proto::NodeFrame welcome;
      welcome.mutable_welcome()->set_lease_seconds(lease_seconds_);
      if (granting_) from->send(welcome);
      break;
    }
    case proto::NodeFrame::kHeartbeat:
      note(frame.heartbeat().running());
      answer_beat(from);
      break;
    case proto::NodeFrame::kPrepared:
      prepared.insert(*node + " " + name_of(frame.prepared().attempt()));
      break;
    case proto::NodeFrame::kExit:
      exits[*node + " " + name_of(frame.exit().attempt())] = frame.exit();
      break;
    case proto::NodeFrame::kRemoteOrted: {
      if (lose_daemons) {
        ++daemons_lost;
        break;
      }
      const auto to = nodes_.find(frame.remote_orted().to_node());
      if (to != nodes_.end()) to->second->send(frame);
      break;
    }
    case proto::NodeFrame::kRemoteOrtedResult: {
      const auto to = nodes_.find(frame.remote_orted_result().to_node());
      if (to != nodes_.end()) to->second->send(frame);
      break;
    }
    case proto::NodeFrame::kRank: take_rank(from, frame.rank().envelope()); break;
    case proto::NodeFrame::kLog: take_log(from, frame.log()); break;
    default: take_chunk(from, frame); break;
  }
  changed_.notify_all();
}

void FakeCoordinator::take_rank(const std::shared_ptr<Channel>& from,
                                const proto::RankEnvelope& envelope) {
  auto& told = ranks[envelope.job() + "/" + std::to_string(envelope.attempt()) + " " +
                     std::to_string(envelope.rank())];
  bool repeated = false;
  for (const auto& each : told) {
    repeated = repeated || (envelope.sequence() > 0 && each.sequence() == envelope.sequence());
  }
  if (!repeated) told.push_back(envelope);
  proto::NodeFrame frame;
  auto& reply = *frame.mutable_rank_reply();
  reply.mutable_attempt()->set_job(envelope.job());
  reply.mutable_attempt()->set_attempt(envelope.attempt());
  reply.set_rank(envelope.rank());
  reply.mutable_reply()->set_sequence(envelope.sequence());
  from->send(frame);
}

void FakeCoordinator::take_log(const std::shared_ptr<Channel>& from,
                               const proto::LogChunk& chunk) {
  auto& log = logs[name_of(chunk.attempt()) + " " + std::to_string(chunk.rank())];
  const auto length = static_cast<int64_t>(log.size());
  if (chunk.offset() <= length) {
    const auto known = static_cast<size_t>(length - chunk.offset());
    if (known > 0) ++log_repeats;
    if (known < chunk.data().size()) log += chunk.data().substr(known);
  }
  proto::NodeFrame frame;
  *frame.mutable_log_ack()->mutable_attempt() = chunk.attempt();
  frame.mutable_log_ack()->set_rank(chunk.rank());
  frame.mutable_log_ack()->set_offset(static_cast<int64_t>(log.size()));
  from->send(frame);
}

void FakeCoordinator::take_chunk(const std::shared_ptr<Channel>& from,
                                 const proto::NodeFrame& frame) {
  proto::NodeFrame answer;
  if (frame.has_chunk_get()) {
    const auto found = chunks.find(frame.chunk_get().hash());
    auto& data = *answer.mutable_chunk_data();
    data.set_request(frame.chunk_get().request());
    data.set_hash(frame.chunk_get().hash());
    data.set_found(found != chunks.end());
    if (data.found()) data.set_data(found->second);
    from->send(answer);
  } else if (frame.has_chunk_put()) {
    chunks[frame.chunk_put().hash()] = frame.chunk_put().data();
    auto& result = *answer.mutable_chunk_put_result();
    result.set_request(frame.chunk_put().request());
    result.set_hash(frame.chunk_put().hash());
    result.set_stored(true);
    from->send(answer);
  }
}

}  // namespace weft::testing
