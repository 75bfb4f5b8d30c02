// The supervisor's thread, its inbox, and what is relayed.
#include "coordinator/launcher/supervisor.h"

#include "coordinator/launcher/launch_record.h"
#include "coordinator/launcher/rank_messages.h"
#include "coordinator/store/topics.h"

namespace weft {
namespace {
constexpr auto kTick = std::chrono::milliseconds(100);
constexpr size_t kHeldMax = 100'000;  // messages of one rank while the disk is full
}  // namespace

Supervisor::Supervisor(Parts parts, SupervisorOptions options)
    : parts_(std::move(parts)),
      options_(std::move(options)),
      data_(parts_.store, parts_.content, options_.data_threads),
      leases_(parts_.clock, options_.lease_seconds, options_.cluster),
      now_(parts_.clock.monotonic()) {
  recall();
  ticket_ = parts_.store.hub().subscribe("", kTopicJob, [this] {
    std::lock_guard lock(mutex_);
    dirty_ = true;
    wake_.notify_one();
  });
}

Supervisor::~Supervisor() { stop(); }

Supervisor::Time Supervisor::seconds(double value) const {
  return std::chrono::duration_cast<Time>(std::chrono::duration<double>(value));
}

void Supervisor::start() {
  thread_ = std::thread([this] { run(); });
}

void Supervisor::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    wake_.wait_for(lock, kTick, [&] { return stopping_ || dirty_ || !inbox_.empty(); });
    lock.unlock();
    step();
    lock.lock();
  }
}

void Supervisor::stop() {
  ticket_.reset();
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
  for (auto& [id, session] : sessions_) {
    session.channel->close({Code::kUnavailable, "the coordinator is stopping"});
  }
  sessions_.clear();
}

bool Supervisor::push(Item item, size_t bytes) {
  std::lock_guard lock(mutex_);
  if (stopping_) return true;
  auto* frame = std::get_if<proto::NodeFrame>(&item.what);
  const bool beat = frame != nullptr && frame->has_heartbeat();
  if (beat && item.answered) {  // only the newest tells anything
    if (auto it = waiting_beats_.find(item.session); it != waiting_beats_.end()) {
      *it->second = std::move(*frame);
      return true;
    }
  }
  if (inbox_bytes_ + bytes > options_.inbox_bytes_max) return false;
  inbox_bytes_ += bytes;
  Item& queued = inbox_.emplace_back(std::move(item));
  if (beat) waiting_beats_[queued.session] = &std::get<proto::NodeFrame>(queued.what);
  wake_.notify_one();
  return true;
}

void Supervisor::accept(std::shared_ptr<Channel> channel) {
  uint64_t id = 0;
  {
    std::lock_guard lock(mutex_);
    id = ++last_session_;
  }
  push({id, Opened{channel}});
  channel->start({[this, id, weak = std::weak_ptr(channel)](proto::NodeFrame frame) {
                    if (const auto from = weak.lock()) arrive(id, *from, std::move(frame));
                  },
                  [this, id](Status why) {
                    leases_.closed(id);
                    push({id, Closed{std::move(why)}});
                  }});
}

// On the channel's thread: nothing here may wait for the store.
void Supervisor::arrive(uint64_t session, Channel& channel, proto::NodeFrame frame) {
  std::optional<proto::NodeFrame> answer;
  if (frame.has_hello()) answer = leases_.hello(session, frame.hello().node());
  if (frame.has_heartbeat()) answer = leases_.beat(session);
  if (answer) channel.send(*answer);
  const size_t bytes = frame.ByteSizeLong();
  if (push({session, std::move(frame), answer.has_value()}, bytes)) return;
  parts_.log.warn("{}: more than {} bytes wait for the store; connection closed", channel.peer(),
                  options_.inbox_bytes_max);
  channel.close({Code::kResourceExhausted, "the coordinator's store is too slow"});
}

void Supervisor::step() {
  std::deque<Item> items;
  bool dirty = false;
  now_ = parts_.clock.monotonic();
  {
    std::lock_guard lock(mutex_);
    items.swap(inbox_);
    inbox_bytes_ = 0;
    waiting_beats_.clear();
    dirty = std::exchange(dirty_, false);
  }
  const bool something = dirty || !items.empty();
  for (Item& item : items) take(std::move(item));
  if (now() >= next_retry_) retry_held();
  if (parts_.inspector != nullptr) ask_ranks();
  check_leases();
  check_attempts();
  check_leaving();
  if (now() >= next_room_) check_room();
  if (something || now() >= next_schedule_) {
    schedule();
    next_schedule_ = now() + seconds(1);
  }
  if (now() >= next_collect_) collect();
}

// Beside the chunks, and one at a time: on a full disk it may take longer than until the next one.
void Supervisor::collect() {
  next_collect_ = now() + seconds(options_.collect_seconds);
  if (collecting_.exchange(true)) return;
  data_.post([this] {
    const auto count = parts_.content.collect(seconds(options_.collect_grace_seconds));
    if (count && *count > 0) parts_.log.info("{} chunks that nothing refers to removed", *count);
    const std::string error = count ? "" : count.error().to_string();
    if (error != collect_error_ && !error.empty()) {
      parts_.log.warn("collection of chunks: {}", error);
    }
    collect_error_ = error;
    collecting_ = false;
  });
}

void Supervisor::take(Item item) {
  if (auto* opened = std::get_if<Opened>(&item.what)) {
    sessions_[item.session] = {opened->channel, "", now()};
  } else if (auto* frame = std::get_if<proto::NodeFrame>(&item.what)) {
    take_frame(item.session, std::move(*frame), item.answered);
  } else if (auto it = sessions_.find(item.session); it != sessions_.end()) {
    const std::string name = it->second.node;
    sessions_.erase(it);
    auto node = nodes_.find(name);
    if (node != nodes_.end() && node->second.session == item.session) {
      node->second.session = 0;
      parts_.log.warn("node {}: {}", name, std::get<Closed>(item.what).why.to_string());
    }
  }
}

void Supervisor::refuse(uint64_t session, const std::string& why) {
  auto it = sessions_.find(session);
  if (it == sessions_.end()) return;
  parts_.log.warn("{}: refused: {}", it->second.channel->peer(), why);
  proto::NodeFrame frame;
  frame.set_refused(why);
  it->second.channel->send(frame);
  it->second.channel->close({Code::kFailedPrecondition, why});
  leases_.closed(session);
  sessions_.erase(it);
}

void Supervisor::take_frame(uint64_t session, proto::NodeFrame frame, bool answered) {
  auto it = sessions_.find(session);
  if (it == sessions_.end()) return;  // refused before
  if (frame.has_hello()) return take_hello(session, frame.hello(), answered);
  const std::string node = it->second.node;
  if (node.empty()) return refuse(session, "the first message must be a hello");
  if (nodes_.at(node).session != session) return;  // another connection has taken its place
  if (is_bulk(frame)) return data_.post(it->second.channel, std::move(frame));
  switch (frame.body_case()) {
    case proto::NodeFrame::kHeartbeat: {
      take_heartbeat(node, frame.heartbeat());
      if (answered) return;  // else it came before its node was admitted
      if (const auto grant = leases_.beat(session)) it->second.channel->send(*grant);
      return;
    }
    case proto::NodeFrame::kPrepared:
      return take_prepared(node, frame.prepared().attempt());
    case proto::NodeFrame::kExit:
      return take_exit(node, frame.exit());
    case proto::NodeFrame::kRank:
      return take_rank(node, frame.rank().envelope());
    case proto::NodeFrame::kInspected:
    case proto::NodeFrame::kTrace:
      return take_inspected(node, std::move(frame));
    case proto::NodeFrame::kRemoteOrted:
    case proto::NodeFrame::kRemoteOrtedResult:
      return relay_orted(session, node, std::move(frame));
    default:
      parts_.log.warn("node {}: an unexpected message is left aside", node);
  }
}

void Supervisor::take_rank(const std::string& node, const proto::RankEnvelope& envelope) {
  const JobPointer job = parts_.store.find(envelope.job());
  if (job && job->attempt() == envelope.attempt() &&
      node_of_rank(job->placement(), envelope.rank()) != node) {
    parts_.log.warn("node {}: a message of rank {} of {}, which is not there, is left aside", node,
                    envelope.rank(), envelope.job());
    return;
  }
  const std::pair key{AttemptKey{envelope.job(), envelope.attempt()}, envelope.rank()};
  if (auto it = held_.find(key); it != held_.end()) {
    if (it->second.size() < kHeldMax) it->second.push_back(envelope);
    return;
  }
  const RankWorld world{parts_.store, parts_.content, parts_.clock, options_.restarts};
  RankAnswer answer = apply_rank_message(world, envelope);
  if (answer.kind == RankAnswer::Kind::kRetry) {
    held_[key].push_back(envelope);
    next_retry_ = now() + seconds(0.5);
    return;
  }
  if (answer.kind == RankAnswer::Kind::kDrop) {
    parts_.log.warn("{}: rank {}: message {} came before an earlier one", envelope.job(),
                    envelope.rank(), envelope.sequence());
    return;
  }
  proto::NodeFrame frame;
  proto::RankReplyFor& reply = *frame.mutable_rank_reply();
  reply.mutable_attempt()->set_job(envelope.job());
  reply.mutable_attempt()->set_attempt(envelope.attempt());
  reply.set_rank(envelope.rank());
  *reply.mutable_reply() = std::move(answer.reply);
  send_to(node, frame);
  Active* active = find_active(envelope.job(), envelope.attempt());
  if (active == nullptr) return;
  if (envelope.has_started()) active->since = now();
  const JobPointer after = parts_.store.find(envelope.job());
  const bool over = !after || !is_active(after->state()) || after->attempt() != envelope.attempt();
  if (over) retire(active->key, envelope.has_failed());
}

void Supervisor::ask_ranks() {
  for (const proto::InspectAttempt& question : parts_.inspector->take_questions()) {
    Active* active = find_active(question.attempt().job(), question.attempt().attempt());
    if (active == nullptr) continue;
    parts_.inspector->known(question.inspect().request(), active->watchdog.ranks(now()));
    proto::NodeFrame frame;
    *frame.mutable_inspect() = question;
    for (const std::string& node : active->nodes) send_to(node, frame);
  }
}

// A node speaks for its own ranks only.
void Supervisor::take_inspected(const std::string& node, proto::NodeFrame frame) {
  if (parts_.inspector == nullptr) return;
  const proto::AttemptRef& ref =
      frame.has_trace() ? frame.trace().attempt() : frame.inspected().attempt();
  const JobPointer job = parts_.store.find(ref.job());
  if (!job || job->attempt() != ref.attempt()) return;
  const auto is_here = [&](int rank) { return node_of_rank(job->placement(), rank) == node; };
  if (frame.has_trace()) {
    if (!is_here(frame.trace().trace().rank())) return;
    frame.mutable_trace()->mutable_trace()->set_node(node);
    return parts_.inspector->answer(std::move(*frame.mutable_trace()));
  }
  for (proto::RankStack& stack : *frame.mutable_inspected()->mutable_ranks()) {
    if (!is_here(stack.now().rank())) return;
    stack.set_node(node);
  }
  parts_.inspector->answer(frame.inspected());
}

void Supervisor::retry_held() {
  next_retry_ = now() + seconds(0.5);
  auto held = std::exchange(held_, {});
  for (auto& [key, envelopes] : held) {
    const JobPointer job = parts_.store.find(key.first.first);
    for (const auto& envelope : envelopes) {
      take_rank(job ? node_of_rank(job->placement(), key.second) : "", envelope);
    }
  }
}

// The head's mpirun wants its daemon on another node of the attempt, and that node answers. What a
// lost connection may have swallowed is said again: here to a node that comes back, by the head
// what it has no answer to; a node that runs the daemon already says so.
void Supervisor::relay_orted(uint64_t session, const std::string& node, proto::NodeFrame frame) {
  if (frame.has_remote_orted_result()) {
    const proto::RemoteOrtedResult& result = frame.remote_orted_result();
    Active* active = find_active(result.attempt().job(), result.attempt().attempt());
    if (active == nullptr || !active->parts.contains(node)) return;
    active->daemons.erase(node);
    send_to(active->nodes.front(), frame);
    return;
  }
  const proto::RemoteOrted& wanted = frame.remote_orted();
  std::string problem;
  Active* active = find_active(wanted.attempt().job(), wanted.attempt().attempt());
  if (active == nullptr) {
    problem = "this attempt is over";
  } else if (wanted.from_node() != node || active->nodes.front() != node) {
    problem = "only the head of an attempt may start daemons";
  } else if (!active->parts.contains(wanted.to_node())) {
    problem = "node " + wanted.to_node() + " is not part of the attempt";
  } else {
    active->daemons[wanted.to_node()] = frame;
    send_to(wanted.to_node(), frame);
  }
  if (problem.empty()) return;
  proto::NodeFrame answer;
  proto::RemoteOrtedResult& result = *answer.mutable_remote_orted_result();
  result.set_request(wanted.request());
  result.set_to_node(node);
  result.set_message(problem);
  *result.mutable_attempt() = wanted.attempt();
  if (auto it = sessions_.find(session); it != sessions_.end()) it->second.channel->send(answer);
}

bool Supervisor::send_to(const std::string& node, const proto::NodeFrame& frame) {
  auto it = nodes_.find(node);
  if (it == nodes_.end() || it->second.session == 0) return false;
  auto session = sessions_.find(it->second.session);
  return session != sessions_.end() && session->second.channel->send(frame);
}

}  // namespace weft
