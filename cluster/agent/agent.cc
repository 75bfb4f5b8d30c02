#include "cluster/agent/agent.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <csignal>
#include <deque>
#include <filesystem>
#include <map>

#include "cluster/agent/attempt.h"
#include "cluster/agent/chunk_exchange.h"
#include "cluster/agent/coordinator_link.h"
#include "cluster/rpc/local_channel.h"
#include "cluster/shepherd/open_mpi.h"
#include "proto/base/hash.h"

namespace weft {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using AttemptPointer = std::shared_ptr<Attempt>;
using ChannelPointer = std::shared_ptr<LocalChannel>;

constexpr auto kTick = std::chrono::milliseconds(100);
constexpr double kHeartbeatSecondsMax = 2;
constexpr int64_t kStopNsMax = 15'000'000'000;
constexpr int64_t kLookNs = 2'000'000'000;
constexpr int64_t kObjectSecondsMax = 24 * 3600;
constexpr int64_t kObjectsLookNs = 3600 * int64_t{1'000'000'000};

class Agent {
 public:
  Agent(const AgentOptions& options, const AgentPlaces& places, proto::NodeInfo node,
        std::string secret, ChunkStore& store)
      : options_(options),
        places_(places),
        node_(std::move(node)),
        log_(Logger::open("agent " + node_.name())),
        link_(io_, options.coordinator_host, options.coordinator_port, std::move(secret), log_),
        chunks_(io_, store, options.chunk_cache_bytes, send()),
        world_{io_, staging_, options_, places_, chunks_, log_, send()},
        timer_(io_),
        signals_(io_, SIGTERM, SIGINT, SIGHUP),
        lease_seconds_(options.lease_seconds) {}
  ~Agent() {
    server_.reset();
    chunks_.stop();
  }

  Status run();

 private:
  std::function<bool(const proto::NodeFrame&)> send() {
    return [this](const proto::NodeFrame& frame) { return link_.send(frame); };
  }
  void find_attempts();
  void connected();
  void heartbeat();
  void granted(double seconds);
  void take(proto::NodeFrame frame);
  void take_about_attempt(const proto::NodeFrame& frame);
  void prepare(const proto::LaunchRecord& record);
  void refuse(const proto::LaunchRecord& record, const Status& why);
  void accept(const ChannelPointer& channel);
  AttemptPointer greet(const ChannelPointer& channel, const std::string& bytes, int& rank);
  AttemptPointer find(const proto::AttemptRef& ref) const;
  void fill(proto::NodeInfo& node, google::protobuf::RepeatedPtrField<proto::AttemptRef>& running);
  void tick();
  void wait_for_signal();
  void end();
  void look_for_folders();
  void remove_old_objects(bool at_start);

  const AgentOptions& options_;
  const AgentPlaces& places_;
  proto::NodeInfo node_;
  const Logger log_;
  asio::io_context io_{1};
  asio::thread_pool staging_{2};
  CoordinatorLink link_;
  ChunkExchange chunks_;
  AttemptWorld world_;
  asio::steady_timer timer_;
  asio::signal_set signals_;
  std::unique_ptr<LocalServer> server_;
  std::map<std::string, AttemptPointer> attempts_;
  double lease_seconds_;
  std::deque<int64_t> asked_at_ns_;  // hello and heartbeats without an answer yet
  int64_t next_heartbeat_ns_ = 0;
  int64_t next_objects_ns_ = boot_time_ns() + kObjectsLookNs;
  int64_t next_look_ns_ = 0;
  int64_t stopping_since_ns_ = 0;
  Status failure_;  // why it ends by itself
};

Status Agent::run() {
  WEFT_ASSIGN_OR_RETURN(server_, listen_local(io_, places_.agent_socket, places_.user.uid,
                                              [this](ChannelPointer channel) { accept(channel); }));
  find_attempts();
  remove_old_objects(true);
  wait_for_signal();
  link_.start({[this] { connected(); }, [this](proto::NodeFrame frame) { take(std::move(frame)); },
               [this] { asked_at_ns_.clear(); }});
  log_.info("node {} with {} slots on {} at {} ({})", node_.name(), node_.slots(),
            places_.on_gpus ? fmt::format("{} GPUs", places_.gpus.size()) : "the CPU",
            node_.address(), node_.subnet_cidr());
  if (!node_.gpus_unused().empty()) log_.warn("{}", node_.gpus_unused());
  tick();
  io_.run();
  for (auto& [key, attempt] : attempts_) {
    if (!attempt->over()) log_.info("{} is left to its shepherd", key);
  }
  chunks_.stop();
  staging_.join();
  server_.reset();
  std::error_code ignored;
  fs::remove(fs::path(places_.agent_socket).parent_path(), ignored);  // only where it is empty
  return failure_;
}

// The shepherds of an agent that was here before.
void Agent::find_attempts() {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(places_.notes, ignored)) {
    proto::AttemptNote note;
    const auto bytes = read_file(entry.path(), int64_t{64} << 20);
    if (!bytes || !note.ParseFromString(*bytes) ||
        entry.path().filename() != Attempt::note_name(note.attempt())) {
      fs::remove(entry.path(), ignored);  // a note that was never finished
      continue;
    }
    const std::string key = key_of(note.attempt());
    log_.info("{} was here before", key);
    auto attempt = std::make_shared<Attempt>(world_, std::move(note));
    attempts_[key] = attempt;
    attempt->adopt();
  }
}

// What no attempt here uses and what was not used for a day. The removal may take long: it is done
// beside, once nothing can find the object any more.
void Agent::remove_old_objects(bool at_start) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(places_.objects, ignored)) {
    const std::string name = entry.path().filename();
    bool used = false;
    for (const auto& [key, attempt] : attempts_) {
      for (const auto& object : attempt->record().objects()) used |= object.id() == name;
    }
    struct stat info {};
    if (used || ::stat(entry.path().c_str(), &info) != 0) continue;
    const bool old = std::time(nullptr) - info.st_mtime > kObjectSecondsMax;
    if (!old && !(at_start && name.starts_with(".building-"))) continue;
    const fs::path gone = places_.objects + "/.building-gone-" + random_hex(6);
    fs::rename(entry.path(), gone, ignored);
    asio::post(staging_, [gone] {
      std::error_code left;
      fs::remove_all(gone, left);
    });
  }
}

void Agent::fill(proto::NodeInfo& node,
                 google::protobuf::RepeatedPtrField<proto::AttemptRef>& running) {
  measure_disk(places_.attempts, node_);
  node = node_;
  for (const auto& [key, attempt] : attempts_) {
    *running.Add() = attempt->ref();
    if (!attempt->over()) node.add_attempts(key);
  }
}

void Agent::connected() {
  proto::NodeFrame frame;
  auto& hello = *frame.mutable_hello();
  fill(*hello.mutable_node(), *hello.mutable_running());
  asked_at_ns_ = {boot_time_ns()};
  link_.send(frame);
  next_heartbeat_ns_ = boot_time_ns();
  for (const auto& [key, attempt] : attempts_) attempt->reconnected();
  chunks_.send_again();
}

void Agent::heartbeat() {
  proto::NodeFrame frame;
  auto& beat = *frame.mutable_heartbeat();
  fill(*beat.mutable_node(), *beat.mutable_running());
  for (const auto& [key, attempt] : attempts_) {
    if (attempt->over()) continue;
    proto::AttemptNow& now = *beat.add_now();
    now.set_job(attempt->ref().job());
    now.set_attempt(attempt->ref().attempt());
    attempt->ranks().fill_now(now);
  }
  if (link_.send(frame)) asked_at_ns_.push_back(boot_time_ns());
}

void Agent::granted(double seconds) {
  if (asked_at_ns_.empty() || !(seconds > 0)) return;
  lease_seconds_ = seconds;
  const int64_t until = asked_at_ns_.front() + static_cast<int64_t>(seconds * 1e9);
  asked_at_ns_.pop_front();
  // Not the longer of the two: a coordinator that came back with a shorter lease counts on it.
  world_.lease_deadline_ns = until;
  for (const auto& [key, attempt] : attempts_) attempt->renew();
}

AttemptPointer Agent::find(const proto::AttemptRef& ref) const {
  const auto found = attempts_.find(key_of(ref));
  return found == attempts_.end() ? nullptr : found->second;
}

void Agent::take(proto::NodeFrame frame) {
  switch (frame.body_case()) {
    case proto::NodeFrame::kWelcome:
      log_.info("the coordinator has taken this node in");
      return granted(frame.welcome().lease_seconds());
    case proto::NodeFrame::kLease:
      granted(frame.lease().lease_seconds());
      for (const auto& ref : frame.lease().revoked()) {
        if (const auto attempt = find(ref)) attempt->revoke();
      }
      return;
    case proto::NodeFrame::kPrepare:
      return prepare(frame.prepare().record());
    case proto::NodeFrame::kChunkData:
      return chunks_.take(std::move(*frame.mutable_chunk_data()));
    case proto::NodeFrame::kChunkPutResult:
      return chunks_.take(frame.chunk_put_result());
    case proto::NodeFrame::kRefused:
      log_.error("the coordinator refuses this node: {}", frame.refused());
      link_.refused();
      return;
    default:
      return take_about_attempt(frame);
  }
}

void Agent::take_about_attempt(const proto::NodeFrame& frame) {
  const auto at = [&](const proto::AttemptRef& ref) { return find(ref); };
  switch (frame.body_case()) {
    case proto::NodeFrame::kStart:
      if (const auto attempt = at(frame.start().attempt())) attempt->start();
      break;
    case proto::NodeFrame::kStop:
      if (const auto attempt = at(frame.stop().attempt())) attempt->stop(frame.stop().why());
      break;
    case proto::NodeFrame::kControl:
      if (const auto attempt = at(frame.control().attempt())) {
        attempt->control(frame.control().control());
      }
      break;
    case proto::NodeFrame::kInspect:
      if (const auto attempt = at(frame.inspect().attempt())) attempt->inspect(frame.inspect());
      break;
    case proto::NodeFrame::kRankReply:
      if (const auto attempt = at(frame.rank_reply().attempt())) {
        attempt->ranks().reply(frame.rank_reply().rank(), frame.rank_reply().reply());
      }
      break;
    case proto::NodeFrame::kLogAck:
      if (const auto attempt = at(frame.log_ack().attempt())) attempt->logs().take(frame.log_ack());
      break;
    case proto::NodeFrame::kRemoteOrtedResult:
      if (const auto attempt = at(frame.remote_orted_result().attempt())) {
        attempt->remote_orted_result(frame.remote_orted_result());
      }
      break;
    case proto::NodeFrame::kRemoteOrted: {
      const auto& wanted = frame.remote_orted();
      if (const auto attempt = at(wanted.attempt())) return attempt->remote_orted(wanted);
      proto::NodeFrame answer;
      auto& result = *answer.mutable_remote_orted_result();
      result.set_request(wanted.request());
      result.set_to_node(wanted.from_node());
      *result.mutable_attempt() = wanted.attempt();
      result.set_message("node " + node_.name() + " holds no lease on " + key_of(wanted.attempt()));
      link_.send(answer);
      break;
    }
    default:
      break;
  }
}

void Agent::prepare(const proto::LaunchRecord& record) {
  proto::AttemptRef ref;
  ref.set_job(record.job());
  ref.set_attempt(record.attempt());
  if (const auto known = find(ref)) return known->reconnected();  // says where it stands
  auto note = Attempt::make_note(world_, node_.name(), record);
  if (!note) return refuse(record, note.error());
  auto attempt = std::make_shared<Attempt>(world_, std::move(*note));
  attempts_[key_of(ref)] = attempt;
  log_.info("{}: preparing", key_of(ref));
  attempt->prepare();
}

void Agent::refuse(const proto::LaunchRecord& record, const Status& why) {
  log_.error("{}/{}: refused: {}", record.job(), record.attempt(), why.to_string());
  proto::NodeFrame frame;
  auto& exit = *frame.mutable_exit();
  exit.mutable_attempt()->set_job(record.job());
  exit.mutable_attempt()->set_attempt(record.attempt());
  exit.set_node(node_.name());
  exit.set_head(record.nodes_size() > 0 && record.nodes(0).name() == node_.name());
  exit.set_exit_code(1);
  exit.set_message(why.to_string());
  link_.send(frame);
}

// A rank proves itself by its user and by its attempt's secret, in its first frame.
void Agent::accept(const ChannelPointer& channel) {
  if (channel->peer_uid() != 0 && channel->peer_uid() != places_.user.uid) return channel->close();
  struct Line {
    AttemptPointer attempt;
    int rank = -1;
  };
  auto line = std::make_shared<Line>();
  channel->start(
      [this, line, weak = std::weak_ptr(channel)](const std::string& bytes) {
        const ChannelPointer from = weak.lock();
        if (from == nullptr) return;
        if (line->attempt != nullptr) {
          line->attempt->ranks().take(line->rank, from, bytes);
        } else {
          line->attempt = greet(from, bytes, line->rank);
        }
      },
      [line, weak = std::weak_ptr(channel)] {
        if (line->attempt != nullptr) line->attempt->ranks().detach(line->rank, weak.lock());
      });
}

AttemptPointer Agent::greet(const ChannelPointer& channel, const std::string& bytes, int& rank) {
  proto::RankFrame frame;
  AttemptPointer attempt;
  if (frame.ParseFromString(bytes) && frame.envelope().has_hello()) {
    const auto& hello = frame.envelope().hello();
    proto::AttemptRef ref;
    ref.set_job(hello.job());
    ref.set_attempt(hello.attempt());
    attempt = find(ref);
    rank = hello.rank();
    if (attempt != nullptr &&
        (rank < 0 || rank >= attempt->record().ranks_size() ||
         attempt->record().ranks(rank).node() != node_.name() ||
         !equal_in_constant_time(hello.secret(), attempt->record().secret()))) {
      attempt = nullptr;
    }
  }
  if (attempt == nullptr) {
    log_.warn("a connection that is no rank of an attempt here was refused");
    channel->close();
    return nullptr;
  }
  proto::RankEnvelope envelope = frame.envelope();
  envelope.set_job(attempt->ref().job());
  envelope.set_attempt(attempt->ref().attempt());
  envelope.set_rank(rank);
  attempt->ranks().attach(channel, envelope);
  return attempt;
}

void Agent::tick() {
  const int64_t now = boot_time_ns();
  if (link_.connected() && now >= next_heartbeat_ns_) {
    const double every = std::min(kHeartbeatSecondsMax, lease_seconds_ / 6);
    next_heartbeat_ns_ = now + static_cast<int64_t>(every * 1e9);
    heartbeat();
  }
  if (!asked_at_ns_.empty() &&
      now - asked_at_ns_.front() > static_cast<int64_t>(lease_seconds_ * 0.5e9)) {
    link_.drop("no answer for half a lease");
  }
  if (now >= next_look_ns_ && stopping_since_ns_ == 0) {
    next_look_ns_ = now + kLookNs;
    look_for_folders();
  }
  bool busy = false;
  for (const auto& [key, attempt] : attempts_) {
    attempt->tick();
    busy = busy || !attempt->over() || (link_.connected() && !attempt->told());
  }
  std::erase_if(attempts_, [](const auto& each) { return each.second->forgotten(); });
  if (now >= next_objects_ns_) {
    next_objects_ns_ = now + kObjectsLookNs;
    remove_old_objects(false);
  }
  if (stopping_since_ns_ != 0 && (!busy || now - stopping_since_ns_ > kStopNsMax)) {
    return io_.stop();
  }
  timer_.expires_after(kTick);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) tick();
  });
}

void Agent::wait_for_signal() {
  signals_.async_wait([this](const boost::system::error_code& error, int number) {
    if (error) return;
    log_.info("signal {}", number);
    if (number == SIGHUP || stopping_since_ns_ != 0) return io_.stop();
    end();
    wait_for_signal();
  });
}

// Once its attempts have ended, and the coordinator knows.
void Agent::end() {
  stopping_since_ns_ = boot_time_ns();
  for (const auto& [key, attempt] : attempts_) attempt->stop(std::string(kAgentEnds));
}

// Without them every attempt would fail here, and a job use up its restarts on a node that seems to
// be well. A lost node's jobs wait or go elsewhere.
void Agent::look_for_folders() {
  for (const auto& folder : {places_.attempts, places_.notes, places_.objects, places_.chunks}) {
    if (::access(folder.c_str(), F_OK) == 0 || errno != ENOENT) continue;
    failure_ = Status(Code::kFailedPrecondition,
                      folder + " was deleted while this agent worked in it, so it ends; 'weft up' "
                               "or 'weft join' starts it again");
    log_.error("{}", failure_.to_string());
    return end();
  }
}

// Told at the start, not by each launch that fails.
Status check_options(const AgentOptions& options) {
  if (!options.subnet.empty() && !open_mpi::is_network(options.subnet)) {
    return Status::invalid("subnet", options.subnet, "must be a network such as 10.0.0.0/24");
  }
  for (const auto& [name, value] :
       {std::pair{"mpi-pml", options.mpi.pml()}, {"mpi-btl", options.mpi.btl()}}) {
    if (value.find_first_not_of(open_mpi::kWordLetters) != std::string::npos) {
      return Status::invalid(name, value, "must be names of Open MPI's components, as in self,tcp");
    }
  }
  const auto& mpi = options.mpi;
  if (mpi.port_min() > 0 && mpi.port_min() + mpi.port_count() - 1 > 65535) {
    return Status::invalid(
        "mpi-port-count", std::to_string(mpi.port_count()),
        "must end at port 65535 or before, from " + std::to_string(mpi.port_min()));
  }
  return {};
}

// One agent a data folder. The descriptor stays open until the process ends.
Status lock_folder(const std::string& data) {
  const std::string path = data + "/agent.lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return Status(Code::kFailedPrecondition, "another agent works in " + data)
        .with_field("data")
        .with_value(data);
  }
  return {};
}

}  // namespace

Status run_agent(const AgentOptions& given) {
  ::umask(022);
  AgentOptions options = given;
  WEFT_RETURN_IF_ERROR(check_options(options));
  WEFT_ASSIGN_OR_RETURN(const std::string secret, read_secret(options.secret_file));
  if (options.mpi.folder().empty()) {
    WEFT_ASSIGN_OR_RETURN(*options.mpi.mutable_folder(), open_mpi::find_programs());
  }
  WEFT_ASSIGN_OR_RETURN(const AgentPlaces places, make_places(options));
  WEFT_RETURN_IF_ERROR(lock_folder(options.data));
  WEFT_ASSIGN_OR_RETURN(const proto::NodeInfo node, take_inventory(options, places));
  WEFT_ASSIGN_OR_RETURN(const auto store, open_chunk_store(places.chunks));
  return Agent(options, places, node, secret, *store).run();
}

}  // namespace weft
