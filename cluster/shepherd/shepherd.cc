#include "cluster/shepherd/shepherd.h"

#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "cluster/process/process.h"
#include "cluster/rpc/local_channel.h"
#include "cluster/shepherd/log_keeper.h"
#include "cluster/shepherd/open_mpi.h"
#include "proto/base/hash.h"
#include "proto/base/log.h"
#include "proto/shepherd.pb.h"

namespace weft {
namespace {

namespace asio = boost::asio;
using ChannelPointer = std::shared_ptr<LocalChannel>;

constexpr auto kTick = std::chrono::milliseconds(200);
constexpr double kKillSeconds = 20;
constexpr int64_t kOomNs = 10'000'000'000;  // an end so soon after such a kill is its consequence
constexpr std::chrono::seconds kShellSeconds{120};
// So long the end waits for room to write the last of the logs and the state: where the processes
// ended by themselves, and where they were killed, which somebody waits for.
constexpr std::chrono::seconds kRoomSeconds{600}, kRoomSecondsKilled{5};
constexpr int64_t kRecordBytesMax = 64 << 20;

class Shepherd {
 public:
  Shepherd(proto::LaunchRecord record, double lease_seconds)
      : record_(std::move(record)),
        log_(Logger::open("shepherd", record_.folder() + "/shepherd.log")),
        deadline_ns_(boot_time_ns() + static_cast<int64_t>(lease_seconds * 1e9)),
        signals_(io_, SIGCHLD, SIGTERM),
        timer_(io_) {
    state_.set_pid(::getpid());
    state_.set_start_time(start_time_of(::getpid()));
  }

  int run();

 private:
  // A connection proves itself with the record's secret in its first frame.
  void accept(const ChannelPointer& channel);
  void take_hello(const ChannelPointer& channel, const std::string& bytes);
  void take_from_agent(const std::string& bytes);
  void take_from_shell(const ChannelPointer& channel, const std::string& bytes);
  void start_launcher();
  Status start_orted(const std::string& command);
  void answer_shell(const proto::RemoteOrtedResult& result);
  void wait_for_signal();
  void reap();
  void tick();
  void watch_memory();
  void kill_all(const std::string& why);
  void finish(int exit_code, const std::string& message);
  bool save();
  void keep_the_end();
  bool is_head() const { return record_.nodes(0).name() == record_.node(); }

  const proto::LaunchRecord record_;
  const Logger log_;
  asio::io_context io_{1};
  int64_t deadline_ns_;
  asio::signal_set signals_;
  asio::steady_timer timer_;
  std::unique_ptr<LocalServer> server_;
  ChannelPointer agent_;
  std::map<uint64_t, ChannelPointer> shells_;        // by request, until answered
  std::map<uint64_t, proto::RemoteOrted> requests_;  // asked of other nodes, for a new agent
  uint64_t last_request_ = 0;
  LogKeeper logs_;
  std::chrono::seconds room_seconds_ = kRoomSeconds;
  std::unique_ptr<Process> launcher_, orted_;
  std::string orted_command_;
  proto::ShepherdState state_;
  std::string daemon_end_;  // of the head's own orted
  int64_t oom_kills_ = weft::oom_kills(), oom_at_ns_ = 0;
  bool finished_ = false;
};

int Shepherd::run() {
  become_subreaper();
  if (const Status status = logs_.start(record_); !status.ok()) {
    log_.error("{}", status.to_string());
    return 1;
  }
  auto server = listen_local(io_, shepherd_socket(record_), ::getuid(),
                             [this](ChannelPointer channel) { accept(channel); });
  if (!server) {
    log_.error("{}", server.error().to_string());
    return 1;
  }
  server_ = std::move(*server);
  save();
  wait_for_signal();
  tick();
  io_.run();
  // Invariant 1; a rank that ignored its launcher's end does not stay. One that the kernel cannot
  // end (its disk is stuck) keeps its slots until it has.
  while (!kill_descendants(kKillSeconds)) {
    log_.error("{} processes of the attempt have not ended {} s after SIGKILL",
               descendants_of(::getpid()).size(), kKillSeconds);
  }
  std::error_code ignored;
  std::filesystem::remove_all(open_mpi::shared_memory_folder(record_), ignored);
  for (const char* part : {"/m", "/d"}) {
    std::filesystem::remove_all(record_.run_folder() + part, ignored);
  }
  keep_the_end();
  return 0;
}

void Shepherd::keep_the_end() {
  state_.set_exited(true);
  logs_.finish();
  const auto until = std::chrono::steady_clock::now() + room_seconds_;
  bool written = logs_.flush();
  while ((!written || !save()) && std::chrono::steady_clock::now() < until) {
    const bool deleted = ::access(record_.folder().c_str(), F_OK) != 0 && errno == ENOENT;
    if (deleted) return;  // no room will come
    std::this_thread::sleep_for(kTick);
    written = logs_.flush();
  }
  if (!written) save();
}

void Shepherd::accept(const ChannelPointer& channel) {
  if (channel->peer_uid() != 0 && channel->peer_uid() != ::getuid()) return channel->close();
  auto greeted = std::make_shared<bool>(false);
  auto is_agent = std::make_shared<bool>(false);
  channel->start(
      [this, greeted, is_agent, weak = std::weak_ptr(channel)](const std::string& bytes) {
        const ChannelPointer from = weak.lock();
        if (from == nullptr || finished_) return;
        if (!*greeted) {
          *greeted = true;
          take_hello(from, bytes);
          *is_agent = from == agent_;
        } else if (*is_agent) {
          take_from_agent(bytes);
        } else {
          take_from_shell(from, bytes);
        }
      },
      [this, weak = std::weak_ptr(channel)] {
        const ChannelPointer gone = weak.lock();
        if (gone != nullptr && gone == agent_) agent_ = nullptr;
        std::erase_if(shells_, [&](const auto& each) {
          if (each.second != gone) return false;
          requests_.erase(each.first);  // nobody waits for it any more
          return true;
        });
      });
}

void Shepherd::take_hello(const ChannelPointer& channel, const std::string& bytes) {
  proto::ShepherdFrame frame;
  if (!frame.ParseFromString(bytes) || !frame.has_hello() ||
      !equal_in_constant_time(frame.hello().secret(), record_.secret())) {
    log_.warn("a connection without the attempt's secret was refused");
    return channel->close();
  }
  if (!frame.hello().agent()) return;
  if (agent_ != nullptr) agent_->close();
  agent_ = channel;
  proto::ShepherdFrame answer;
  *answer.mutable_state() = state_;
  agent_->send(answer);
  for (const auto& [request, wanted] : requests_) {
    proto::ShepherdFrame again;
    *again.mutable_remote_orted() = wanted;
    agent_->send(again);
  }
}

void Shepherd::take_from_agent(const std::string& bytes) {
  proto::ShepherdFrame frame;
  if (!frame.ParseFromString(bytes)) return;
  if (frame.has_lease()) {
    deadline_ns_ = frame.lease().deadline_ns();
  } else if (frame.has_start()) {
    start_launcher();
  } else if (frame.has_stop()) {
    kill_all(frame.stop().why());
  } else if (frame.has_remote_orted()) {
    const Status status = start_orted(frame.remote_orted().command());
    proto::ShepherdFrame answer;
    auto& result = *answer.mutable_remote_orted_result();
    result.set_request(frame.remote_orted().request());
    result.set_to_node(frame.remote_orted().from_node());
    *result.mutable_attempt() = frame.remote_orted().attempt();
    result.set_started(status.ok());
    result.set_message(status.to_string());
    if (agent_ != nullptr) agent_->send(answer);
  } else if (frame.has_remote_orted_result()) {
    answer_shell(frame.remote_orted_result());
  }
}

void Shepherd::take_from_shell(const ChannelPointer& channel, const std::string& bytes) {
  proto::ShepherdFrame frame;
  if (!frame.ParseFromString(bytes) || !frame.has_shell()) return channel->close();
  const uint64_t request = ++last_request_;
  shells_[request] = channel;
  proto::RemoteOrtedResult result;
  result.set_request(request);
  const auto node = open_mpi::node_of(frame.shell().host(), record_);
  if (node && *node != record_.node()) {
    proto::ShepherdFrame ask;
    auto& wanted = *ask.mutable_remote_orted();
    wanted.mutable_attempt()->set_job(record_.job());
    wanted.mutable_attempt()->set_attempt(record_.attempt());
    wanted.set_from_node(record_.node());
    wanted.set_to_node(*node);
    wanted.set_command(frame.shell().command());
    wanted.set_request(request);
    requests_[request] = wanted;
    if (agent_ != nullptr) agent_->send(ask);
    return;
  }
  const Status status = node ? start_orted(frame.shell().command()) : node.error();
  result.set_started(status.ok());
  result.set_message(status.to_string());
  answer_shell(result);
}

void Shepherd::answer_shell(const proto::RemoteOrtedResult& result) {
  requests_.erase(result.request());
  const auto found = shells_.find(result.request());
  if (found == shells_.end()) return;
  proto::ShepherdFrame answer;
  answer.mutable_shell_result()->set_started(result.started());
  answer.mutable_shell_result()->set_message(result.message());
  found->second->send(answer);
  found->second->close();
  shells_.erase(result.request());
}

void Shepherd::start_launcher() {
  if (launcher_ != nullptr || !is_head() || finished_) return;
  auto started = start_process(open_mpi::mpirun(record_));
  if (!started) return finish(127, started.error().to_string());
  launcher_ = std::move(*started);
  state_.set_started(true);
  save();
  log_.info("mpirun is process {}", launcher_->pid());
}

Status Shepherd::start_orted(const std::string& command) {
  if (orted_ != nullptr) {  // asked again after a lost answer
    return command == orted_command_
               ? Status()
               : Status(Code::kAlreadyExists, "this node's orted runs already");
  }
  WEFT_ASSIGN_OR_RETURN(const auto arguments, open_mpi::parse_orted(command));
  WEFT_ASSIGN_OR_RETURN(orted_, start_process(open_mpi::orted(record_, arguments)));
  orted_command_ = command;
  state_.set_started(true);
  save();
  log_.info("orted is process {}", orted_->pid());
  return {};
}

void Shepherd::wait_for_signal() {
  signals_.async_wait([this](const boost::system::error_code& error, int number) {
    if (error) return;
    if (number == SIGTERM) {
      kill_all("the shepherd was told to end");
    } else {
      reap();
    }
    wait_for_signal();
  });
}

// On the head node the attempt ends with mpirun, elsewhere with orted.
void Shepherd::reap() {
  while (const auto ended = reap_any()) {
    const bool launcher = launcher_ != nullptr && ended->pid == launcher_->pid();
    const bool daemon = orted_ != nullptr && ended->pid == orted_->pid();
    if (launcher || daemon) {
      log_.info("{} ended with {}", launcher ? "mpirun" : "orted", ended->code);
    }
    // A signal is told, an exit code means nothing to people: the launcher's output may say more.
    if (daemon && ended->by_signal) {
      daemon_end_ = "orted (Open MPI's daemon) on " + record_.node() + " " + end_text(ended->code);
    }
    if (daemon && !is_head()) finish(ended->code, daemon_end_);
    if (launcher) {
      finish(ended->code, ended->by_signal
                              ? "mpirun on " + record_.node() + " " + end_text(ended->code)
                              : daemon_end_);
    }
  }
}

void Shepherd::tick() {
  if (boot_time_ns() > deadline_ns_) {
    kill_all("the lease ran out: the agent or the coordinator was away for too long");
  }
  if (finished_) return;
  watch_memory();
  timer_.expires_after(kTick);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) tick();
  });
}

void Shepherd::watch_memory() {
  const int64_t kills = weft::oom_kills();
  if (kills > oom_kills_) oom_at_ns_ = boot_time_ns();
  oom_kills_ = kills;
}

void Shepherd::kill_all(const std::string& why) {
  if (finished_) return;
  log_.warn("killing everything of the attempt: {}", why);
  room_seconds_ = kRoomSecondsKilled;
  finish(128 + SIGKILL, why);
}

void Shepherd::finish(int exit_code, const std::string& message) {
  if (finished_) return;
  finished_ = true;
  state_.set_exit_code(exit_code);
  state_.set_message(message);
  watch_memory();
  state_.set_out_of_memory(oom_at_ns_ > 0 && boot_time_ns() - oom_at_ns_ < kOomNs);
  server_.reset();
  io_.stop();
}

bool Shepherd::save() {
  const Status status = write_file(shepherd_state_file(record_), state_.SerializeAsString(), 0600);
  if (!status.ok()) log_.error("{}", status.to_string());
  return status.ok();
}

Result<proto::LaunchRecord> read_record(const std::string& path) {
  WEFT_ASSIGN_OR_RETURN(const std::string bytes, read_file(path, kRecordBytesMax));
  proto::LaunchRecord record;
  if (!record.ParseFromString(bytes)) return fail(Code::kCorruption, path + ": no launch record");
  return record;
}

}  // namespace

std::string shepherd_socket(const proto::LaunchRecord& record) {
  return record.run_folder() + "/s";
}
std::string shepherd_state_file(const proto::LaunchRecord& record) {
  return record.folder() + "/shepherd.state";
}
std::string launch_record_file(const proto::LaunchRecord& record) {
  return record.folder() + "/launch.record";
}

int shepherd_main(const std::string& record_path, double lease_seconds) {
  auto record = read_record(record_path);
  if (!record) {
    std::fprintf(stderr, "weft-agent --shepherd: %s\n", record.error().to_string().c_str());
    return 1;
  }
  ::umask(077);
  return Shepherd(std::move(*record), lease_seconds).run();
}

int remote_shell_main(const std::string& host, const std::string& command) {
  const char* path = std::getenv("WEFT_LAUNCH_RECORD");  // NOLINT: one thread
  auto record = read_record(path == nullptr ? "WEFT_LAUNCH_RECORD" : path);
  if (!record) {
    std::fprintf(stderr, "weft remote shell: %s\n", record.error().to_string().c_str());
    return 1;
  }
  asio::io_context io{1};
  auto channel = connect_local(io, shepherd_socket(*record));
  if (!channel) {
    std::fprintf(stderr, "weft remote shell: %s\n", channel.error().to_string().c_str());
    return 1;
  }
  proto::RemoteShellResult result;
  result.set_message("the shepherd is gone");
  (*channel)->start(
      [&](const std::string& bytes) {
        proto::ShepherdFrame frame;
        if (frame.ParseFromString(bytes) && frame.has_shell_result()) result = frame.shell_result();
      },
      [&] { io.stop(); });
  proto::ShepherdFrame hello, ask;
  hello.mutable_hello()->set_secret(record->secret());
  ask.mutable_shell()->set_host(host);
  ask.mutable_shell()->set_command(command);
  (*channel)->send(hello);
  (*channel)->send(ask);
  io.run_for(kShellSeconds);
  if (!io.stopped()) {
    result.set_message("no answer within " + std::to_string(kShellSeconds.count()) + " s");
  }
  if (!result.started()) {
    std::fprintf(stderr, "weft remote shell: orted on %s: %s\n", host.c_str(),
                 result.message().c_str());
  }
  return result.started() ? 0 : 1;
}

}  // namespace weft
