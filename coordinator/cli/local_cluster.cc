#include "coordinator/cli/local_cluster.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "cluster/process/process.h"
#include "coordinator/cli/settings.h"
#include "proto/base/hash.h"
#include "proto/json/message_json.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

constexpr double kReplaceSeconds = 5;

Status make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error) return Status();
  return Status(Code::kUnavailable, fmt::format("cannot make the folder {}: {}; name another with "
                                                "--data, or make this one writable",
                                                path, error.message()));
}

Status make_secret(const std::string& path) {
  std::error_code error;
  if (fs::exists(path, error)) return Status();
  return write_text_file(path, random_hex(32) + "\n", 0600);
}

// "2/3": the part of the machine that the second of three nodes has.
std::string share_of(const std::string& node, const proto::LocalCluster& cluster) {
  const auto& names = cluster.node_names();
  const auto before = std::find(names.begin(), names.end(), node) - names.begin();
  return fmt::format("{}/{}", std::min<int64_t>(before + 1, cluster.nodes()), cluster.nodes());
}

}  // namespace

Result<FolderLock> FolderLock::take(const std::string& data) {
  const std::string path = data + "/run/lock";
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) {
    return fail(Code::kUnavailable, fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  }
  const bool locked = wait_until(60, [&] { return ::flock(file, LOCK_EX | LOCK_NB) == 0; });
  if (!locked) {
    ::close(file);
    return fail(Code::kUnavailable,
                "another 'weft up' or 'weft down' works on " + data + "; wait until it has ended");
  }
  return FolderLock(file);
}

FolderLock::~FolderLock() {
  if (file_ >= 0) ::close(file_);
}

Process LocalPrograms::running(const std::string& name) const {
  return read_pid_file(fmt::format("{}/run/{}.pid", data_, name));
}

// Shepherds of a root agent whose folder the ranks' user cannot reach work below that user's home,
// in a folder named after the agent's (cluster/agent/options.h).
std::vector<Process> LocalPrograms::agents() const {
  std::error_code error;
  std::set<std::string> words = {data_ + "/nodes/"};
  const fs::path nodes = fs::canonical(data_ + "/nodes", error);
  if (!error) words.insert(nodes.string() + "/");
  for (const auto& node : fs::directory_iterator(nodes, error)) {
    words.insert("/nodes/" + sha256_hex(node.path().string()).substr(0, 12) + "/");
  }
  std::map<int, Process> found;
  for (const std::string& word : words) {
    for (const Process& process : find_processes("weft-agent", word)) found[process.pid] = process;
  }
  std::vector<Process> all;
  for (const auto& [pid, process] : found) all.push_back(process);
  return all;
}

Status check_programs() {
  for (const char* name : {"weft-coordinator", "weft-agent", "weft-worker"}) {
    const std::string path = program_folder() + "/" + name;
    if (::access(path.c_str(), X_OK) == 0) continue;
    return Status(Code::kFailedPrecondition,
                  path + " is not there; build it beside weft (cluster/deploy/build.sh)");
  }
  return Status();
}

Status LocalPrograms::start(const std::string& name, const std::vector<std::string>& argv) {
  if (is_alive(running(name))) return Status();
  WEFT_ASSIGN_OR_RETURN(const Process process, start_daemon(argv, log(name)));
  return write_pid_file(fmt::format("{}/run/{}.pid", data_, name), process);
}

Status LocalPrograms::start_coordinator(const std::vector<std::string>& host_names) {
  std::vector<std::string> argv = {program_folder() + "/weft-coordinator",
                                   "--data",
                                   data_ + "/coordinator",
                                   "--listen",
                                   cluster_.address(),
                                   "--port",
                                   std::to_string(cluster_.port()),
                                   "--agent-port",
                                   std::to_string(cluster_.agent_port()),
                                   "--token-file",
                                   data_ + "/token",
                                   "--secret-file",
                                   data_ + "/join-secret"};
  for (const std::string& name : host_names) argv.insert(argv.end(), {"--host-name", name});
  return start("coordinator", argv);
}

Status LocalPrograms::start_agent(const std::string& name) {
  const std::string folder = data_ + "/nodes/" + name;
  WEFT_RETURN_IF_ERROR(make_folder(folder));
  std::vector<std::string> argv = {program_folder() + "/weft-agent",
                                   "--coordinator",
                                   cluster_.coordinator(),
                                   "--name",
                                   name,
                                   "--data",
                                   folder,
                                   "--secret-file",
                                   data_ + "/join-secret"};
  if (cluster_.slots_per_node() > 0) {
    argv.insert(argv.end(), {"--slots", std::to_string(cluster_.slots_per_node())});
  } else if (!cluster_.address().empty()) {  // of 'weft up'
    argv.insert(argv.end(), {"--cpu-slots", "1"});
  }
  // The nodes of one machine share its memory and its GPUs.
  int64_t memory = machine_memory_bytes();
  if (cluster_.memory_bytes() > 0) memory = std::min(memory, cluster_.memory_bytes());
  argv.insert(argv.end(),
              {"--memory-bytes", std::to_string(memory / std::max(1, cluster_.nodes()))});
  if (cluster_.nodes() > 1) argv.insert(argv.end(), {"--gpus", share_of(name, cluster_)});
  // An agent with another share, of when there were fewer nodes, gives way; its ranks go on.
  if (const Process agent = running(name); is_alive(agent) && arguments_of(agent) != argv) {
    replace_agent(agent);
  }
  return start(name, argv);
}

void LocalPrograms::replace_agent(const Process& agent) {
  ::kill(agent.pid, SIGHUP);  // at which it leaves its attempts to their shepherds
  if (!wait_until(kReplaceSeconds, [&] { return !is_alive(agent); })) ::kill(agent.pid, SIGKILL);
  wait_until(kReplaceSeconds, [&] { return !is_alive(agent); });
}

Status prepare_folder(const std::string& data, bool with_secrets) {
  for (const char* part : {"", "/run", "/log", "/nodes"}) {
    WEFT_RETURN_IF_ERROR(make_folder(data + part));
  }
  if (!with_secrets) return Status();
  WEFT_RETURN_IF_ERROR(make_folder(data + "/coordinator"));
  ::chmod((data + "/coordinator").c_str(), 0700);
  WEFT_RETURN_IF_ERROR(make_secret(data + "/token"));
  return make_secret(data + "/join-secret");
}

Status save_local_cluster(const std::string& data, const proto::LocalCluster& cluster) {
  return write_text_file(data + "/cluster.json", write_json(cluster, {.indent = 2}) + "\n", 0644);
}

}  // namespace weft::cli
