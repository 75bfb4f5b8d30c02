#include "cluster/agent/attempt.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <csignal>
#include <filesystem>

#include "cluster/agent/stager.h"
#include "cluster/process/output_pipe.h"
#include "cluster/shepherd/open_mpi.h"
#include "cluster/shepherd/shepherd.h"
#include "proto/base/hash.h"
#include "proto/base/retry.h"

namespace weft {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;

constexpr int64_t kSettleNs = 5'000'000'000;    // how long an end waits for its logs
constexpr int64_t kKeepNs = 600'000'000'000;    // how long its logs wait for the coordinator's disk
constexpr int64_t kTailBytes = 4096;
constexpr int64_t kLauncherBytes = 1 << 20;     // of its end, where it tells why it ended

std::vector<int> logs_of(const proto::LaunchRecord& record) {
  std::vector<int> logs;
  for (const auto& rank : record.ranks()) {
    if (rank.node() == record.node()) logs.push_back(rank.rank());
  }
  if (record.nodes_size() > 0 && record.nodes(0).name() == record.node()) {
    logs.push_back(kLauncherLog);
  }
  return logs;
}

bool is_plain_name(const std::string& text) {
  return !text.empty() && text.size() <= 128 &&
         std::all_of(text.begin(), text.end(), [](unsigned char letter) {
           return std::isalnum(letter) != 0 || letter == '-' || letter == '_';
         });
}

Status own_folder(const std::string& path, const AgentPlaces& places) {
  if ((::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) ||
      (places.change_user && ::lchown(path.c_str(), places.user.uid, places.user.gid) != 0)) {
    return Status(errno == ENOSPC ? Code::kResourceExhausted : Code::kUnavailable,
                  "cannot make the folder " + path);
  }
  return {};
}

// Which GPU, or which processors, the ranks of this node compute on. Where another agent starts
// ranks on this machine the system is left to share out the processors.
void place_ranks(const AgentPlaces& places, const std::string& node, proto::LaunchRecord& record) {
  const auto own = std::find_if(record.nodes().begin(), record.nodes().end(),
                                [&](const proto::LaunchNode& each) { return each.name() == node; });
  const int slots = own == record.nodes().end() ? 0 : own->slots();
  const bool pinned = places.agents.alone();
  for (proto::LaunchRank& rank : *record.mutable_ranks()) {
    if (rank.node() != node) continue;
    if (!places.rank_gpus.empty()) {
      rank.set_gpu(places.rank_gpus[static_cast<size_t>(rank.slot()) % places.rank_gpus.size()]);
    }
    if (!pinned) continue;
    const auto cpus = processors_of_slot(places.processors, slots, rank.slot(), rank.threads());
    rank.mutable_cpus()->Add(cpus.begin(), cpus.end());
  }
}

}  // namespace

std::string key_of(const proto::AttemptRef& ref) {
  return ref.job() + "/" + std::to_string(ref.attempt());
}

Result<proto::AttemptNote> Attempt::make_note(const AttemptWorld& world, const std::string& node,
                                              proto::LaunchRecord record) {
  if (!is_plain_name(record.job()) || record.attempt() <= 0) {
    return fail(Status::invalid("record.job", record.job(), "must be a job's id"));
  }
  const AgentPlaces& places = world.places;
  proto::AttemptNote note;
  note.mutable_attempt()->set_job(record.job());
  note.mutable_attempt()->set_attempt(record.attempt());
  const std::string name = note_name(note.attempt());
  record.set_node(node);
  record.set_folder(places.attempts + "/" + name);
  record.set_objects_folder(places.objects);
  record.set_agent_socket(places.agent_socket);
  record.set_run_folder(places.run + "/" + random_hex(6));
  record.set_worker(places.worker);
  record.set_library_path(places.library_path);
  record.set_agent(places.agent);
  place_ranks(places, node, record);
  *record.mutable_mpi() = world.options.mpi;
  const Status status = open_mpi::check(record);
  *note.mutable_record() = std::move(record);
  if (!status.ok()) return fail(status);
  return note;
}

Attempt::Attempt(AttemptWorld& world, proto::AttemptNote note)
    : world_(world), note_(std::move(note)), ranks_(world.chunks, world.send),
      logs_(note_.attempt(), record().folder(), world.places.user.uid, logs_of(record()),
            world.send),
      cancelled_(std::make_shared<std::atomic<bool>>(false)) {
  if (note_.has_control()) ranks_.keep(note_.control());
}

std::string Attempt::note_name(const proto::AttemptRef& ref) {
  return ref.job() + "-" + std::to_string(ref.attempt());
}

std::string Attempt::note_file() const { return world_.places.notes + "/" + note_name(ref()); }

void Attempt::save() {
  const Status status = write_file(note_file(), note_.SerializeAsString(), 0600);
  if (!status.ok()) world_.log.error("{}: {}", key_of(ref()), status.to_string());
}

void Attempt::prepare() {
  save();
  staging_ = true;
  asio::post(world_.staging, [self = shared_from_this(), cancelled = cancelled_] {
    const auto fetch = [&](const std::string& hash) {
      return self->world_.chunks.get_blocking(hash);
    };
    const proto::LaunchRecord& record = self->record();
    Status status = stage_objects(record, record.objects_folder(), fetch, *cancelled);
    // Staging does not wait for a full disk: another node may have room.
    const bool permanent =
        !status.ok() && !retryable(status.code()) && status.code() != Code::kResourceExhausted;
    if (status.ok()) status = self->make_folders();
    asio::post(self->world_.io, [self, permanent, status = std::move(status)] {
      self->staging_ = false;
      if (self->over()) return;
      if (!status.ok()) return self->finish(1, status.to_string(), {.permanent = permanent});
      self->start_shepherd();
    });
  });
}

// The record is written while the folder is still the agent's own.
Status Attempt::make_folders() const {
  const AgentPlaces& places = world_.places;
  const std::string& run = record().run_folder();
  const std::string file = launch_record_file(record());
  std::error_code error;
  fs::remove_all(record().folder(), error);
  if (::mkdir(record().folder().c_str(), 0700) != 0) {
    return Status(Code::kUnavailable, "cannot make the folder " + record().folder());
  }
  WEFT_RETURN_IF_ERROR(write_file(file, record().SerializeAsString(), 0600));
  if (places.change_user && ::lchown(file.c_str(), places.user.uid, places.user.gid) != 0) {
    return Status(Code::kUnavailable, "cannot give away " + file);
  }
  if (::mkdir(run.c_str(), 0700) != 0 && errno != EEXIST) {
    return Status(Code::kUnavailable, "cannot make the folder " + run);
  }
  fs::create_directories(run + "/bin", error);
  ::chmod((run + "/bin").c_str(), 0755);
  ::symlink(record().worker().c_str(), (run + "/bin/weft-worker").c_str());        // NOLINT
  ::symlink(record().agent().c_str(), (run + "/bin/weft-remote-shell").c_str());   // NOLINT
  for (const char* part : {"/m", "/d"}) WEFT_RETURN_IF_ERROR(own_folder(run + part, places));
  WEFT_RETURN_IF_ERROR(own_folder(run, places));
  if (::access("/dev/shm", W_OK) == 0) {
    WEFT_RETURN_IF_ERROR(own_folder(open_mpi::shared_memory_folder(record()), places));
  }
  return own_folder(record().folder(), places);
}

void Attempt::start_shepherd() {
  const int64_t left = world_.lease_deadline_ns - boot_time_ns();
  const double seconds =
      world_.lease_deadline_ns == 0 ? world_.options.lease_seconds : double(left) / 1e9;
  ProcessOptions options;
  options.argv = {record().agent(), "--shepherd", launch_record_file(record()), "--lease-seconds",
                  std::to_string(std::max(seconds, 0.1))};
  options.env = {"PATH=/usr/bin:/bin", "LANG=C.UTF-8",
                 "WEFT_LAUNCH_RECORD=" + launch_record_file(record())};
  options.new_session = true;
  if (world_.places.change_user) {
    options.uid = world_.places.user.uid;
    options.gid = world_.places.user.gid;
  }
  auto started = start_process(options);
  if (!started) return finish(1, "starting the shepherd: " + started.error().to_string());
  shepherd_ = std::move(*started);
  note_.mutable_shepherd()->set_pid(shepherd_->pid());
  note_.mutable_shepherd()->set_start_time(start_time_of(shepherd_->pid()));
  save();
  world_.log.info("{}: shepherd is process {}", key_of(ref()), shepherd_->pid());
}

void Attempt::adopt() {
  if (over()) {
    over_since_ns_ = boot_time_ns();
  } else if (note_.shepherd().pid() == 0) {
    starting_over_ = true;  // a shepherd may have been started and not yet noted
    tick();
  } else {
    tick();
  }
}

void Attempt::connect_shepherd() {
  auto channel = connect_local(world_.io, shepherd_socket(record()));
  if (!channel) return;  // not yet, or just ending
  channel_ = *channel;
  channel_->start([self = shared_from_this(), raw = channel_.get()](const std::string& bytes) {
                    if (self->channel_.get() == raw) self->take_from_shepherd(bytes);
                  },
                  [self = shared_from_this(), raw = channel_.get()] {
                    if (self->channel_.get() == raw) self->channel_ = nullptr;
                  });
  proto::ShepherdFrame hello;
  hello.mutable_hello()->set_secret(record().secret());
  hello.mutable_hello()->set_agent(true);
  channel_->send(hello);
  renew();
  if (!stop_why_.empty()) stop(stop_why_);
}

void Attempt::send_to_shepherd(const proto::ShepherdFrame& frame) {
  if (channel_ != nullptr) channel_->send(frame);
}

void Attempt::renew() {
  if (channel_ == nullptr || world_.lease_deadline_ns == 0) return;
  proto::ShepherdFrame frame;
  frame.mutable_lease()->set_deadline_ns(world_.lease_deadline_ns);
  send_to_shepherd(frame);
}

void Attempt::take_from_shepherd(const std::string& bytes) {
  proto::ShepherdFrame frame;
  if (!frame.ParseFromString(bytes)) return;
  if (frame.has_state()) {
    if (!note_.prepared()) {
      note_.set_prepared(true);
      save();
    }
    tell_prepared();
  } else if (frame.has_remote_orted()) {
    asked_[frame.remote_orted().request()] = frame.remote_orted();
    proto::NodeFrame out;
    *out.mutable_remote_orted() = frame.remote_orted();
    world_.send(out);
  } else if (frame.has_remote_orted_result()) {
    proto::NodeFrame out;
    *out.mutable_remote_orted_result() = frame.remote_orted_result();
    world_.send(out);
  }
}

void Attempt::tell_prepared() {
  proto::NodeFrame frame;
  *frame.mutable_prepared()->mutable_attempt() = ref();
  world_.send(frame);
}

void Attempt::start() {
  proto::ShepherdFrame frame;
  *frame.mutable_start()->mutable_attempt() = ref();
  send_to_shepherd(frame);
}

void Attempt::stop(const std::string& why) {
  *cancelled_ = true;
  if (over()) return;
  stop_why_ = why;
  if (note_.shepherd().pid() == 0) return finish(128 + SIGKILL, why);
  proto::ShepherdFrame frame;
  *frame.mutable_stop()->mutable_attempt() = ref();
  frame.mutable_stop()->set_why(why);
  send_to_shepherd(frame);
}

void Attempt::revoke() {
  if (!revoked_) world_.log.info("{}: revoked", key_of(ref()));
  revoked_ = true;
  stop("the coordinator has moved on");
}

void Attempt::control(const proto::Control& control) {
  if (control.kind() != proto::CONTROL_KIND_CHECKPOINT) {
    *note_.mutable_control() = control;
    save();
  }
  ranks_.control(control);
}

void Attempt::inspect(const proto::InspectAttempt& question) {
  std::vector<int> here;
  for (const auto& rank : record().ranks()) {
    if (rank.node() == record().node()) here.push_back(rank.rank());
  }
  ranks_.inspect(question, here);
}

void Attempt::remote_orted(const proto::RemoteOrted& wanted) {
  if (channel_ == nullptr) {
    proto::NodeFrame out;
    auto& result = *out.mutable_remote_orted_result();
    result.set_request(wanted.request());
    result.set_to_node(wanted.from_node());
    *result.mutable_attempt() = ref();
    result.set_message("node " + record().node() + " has no shepherd for " + key_of(ref()));
    world_.send(out);
    return;
  }
  proto::ShepherdFrame frame;
  *frame.mutable_remote_orted() = wanted;
  send_to_shepherd(frame);
}

void Attempt::remote_orted_result(const proto::RemoteOrtedResult& result) {
  asked_.erase(result.request());
  proto::ShepherdFrame frame;
  *frame.mutable_remote_orted_result() = result;
  send_to_shepherd(frame);
}

void Attempt::reconnected() {
  logs_.reconnected();
  ranks_.reconnected();
  exit_told_ = false;
  if (over()) return;
  if (note_.prepared()) tell_prepared();
  for (const auto& [request, wanted] : asked_) {
    proto::NodeFrame out;
    *out.mutable_remote_orted() = wanted;
    world_.send(out);
  }
}

void Attempt::tick() {
  if (shepherd_ != nullptr) shepherd_->exit_code();  // reaps it
  if (starting_over_ && kill_leftovers()) {
    starting_over_ = false;
    if (!over()) prepare();
  }
  if (!over() && channel_ == nullptr && note_.shepherd().pid() != 0) {
    if (is_alive(note_.shepherd().pid(), note_.shepherd().start_time())) {
      connect_shepherd();
    } else {
      shepherd_gone();
    }
  }
  if (forgotten_) return;
  logs_.poll();
  if (!over() || starting_over_ || !logs_settled()) return;
  tell_exit();
  const bool kept = logs_.drained() || boot_time_ns() - over_since_ns_ > kKeepNs;
  if (revoked_ && !staging_ && kept) forget();
}

// Kills what runs with this attempt's record; true: there is nothing left of it.
bool Attempt::kill_leftovers() const {
  const std::string variable = "WEFT_LAUNCH_RECORD=" + launch_record_file(record());
  const auto left = processes_with(world_.places.user.uid, variable);
  for (const pid_t pid : left) ::kill(pid, SIGKILL);
  return left.empty();
}

bool Attempt::logs_settled() const {
  return (logs_.drained() && ranks_.quiet()) || boot_time_ns() - over_since_ns_ > kSettleNs;
}

void Attempt::shepherd_gone() {
  proto::ShepherdState state;
  const auto bytes = read_file(shepherd_state_file(record()), 1 << 20);
  if (!bytes || !state.ParseFromString(*bytes) || !state.exited()) {
    // It was killed; mpirun and orted died with it, their ranks may take a moment.
    if (!kill_leftovers()) return;  // looks again at the next tick
    const auto code = shepherd_ == nullptr ? std::nullopt : shepherd_->exit_code();
    return finish(code.value_or(128 + SIGKILL), "the shepherd on " + record().node() + " " +
                                                    (code ? end_text(*code) : "was killed"));
  }
  std::string message = state.message();
  if (message.empty() && state.exit_code() != 0) {
    const auto log = read_tail(log_file(record(), kLauncherLog), kLauncherBytes);
    if (log) message = open_mpi::explain(*log, record());
  }
  finish(state.exit_code(), message, {.out_of_memory = state.out_of_memory()});
}

void Attempt::finish(int exit_code, const std::string& message, ExitEvidence evidence) {
  if (over()) return;
  proto::AttemptExit& exit = *note_.mutable_exit();
  *exit.mutable_attempt() = ref();
  exit.set_node(record().node());
  exit.set_head(is_head());
  exit.set_exit_code(exit_code);
  exit.set_message(message);
  exit.set_permanent(evidence.permanent);
  exit.set_out_of_memory(evidence.out_of_memory);
  exit.set_planned(message == kAgentEnds || stop_why_ == kAgentEnds);
  const auto log = read_tail(log_file(record(), kLauncherLog), kTailBytes);
  if (log) exit.set_log_tail(*log);
  save();
  over_since_ns_ = boot_time_ns();
  world_.log.info("{}: ended with {}{}{}", key_of(ref()), exit_code, message.empty() ? "" : ": ",
                  message);
  std::error_code ignored;
  if (!staging_) {
    fs::remove_all(record().run_folder(), ignored);
    fs::remove_all(open_mpi::shared_memory_folder(record()), ignored);
  }
}

void Attempt::tell_exit() {
  if (exit_told_) return;
  proto::NodeFrame frame;
  *frame.mutable_exit() = note_.exit();
  exit_told_ = world_.send(frame);
}

void Attempt::forget() {
  std::error_code ignored;
  fs::remove_all(record().run_folder(), ignored);
  fs::remove_all(open_mpi::shared_memory_folder(record()), ignored);
  fs::remove_all(record().folder(), ignored);
  fs::remove(note_file(), ignored);
  forgotten_ = true;
}

}  // namespace weft
