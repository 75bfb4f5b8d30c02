// `weft doctor`: what this machine lacks, each failing line with its remedy.
#include <dlfcn.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/local_cluster.h"
#include "proto/json/writer.h"

namespace weft::cli {
namespace {

enum class Verdict { kGood, kNote, kBad };

struct Finding {
  std::string what;
  Verdict verdict = Verdict::kGood;
  std::string found;
  std::string remedy;  // of kBad and kNote
};

Finding good(std::string what, std::string found) {
  return {std::move(what), Verdict::kGood, std::move(found), ""};
}
Finding bad(std::string what, std::string found, std::string remedy) {
  return {std::move(what), Verdict::kBad, std::move(found), std::move(remedy)};
}
Finding note(std::string what, std::string found, std::string remedy) {
  return {std::move(what), Verdict::kNote, std::move(found), std::move(remedy)};
}

// The first line that a program prints; empty: it is not there or failed.
std::string first_line_of(const char* command) {
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command, "re"), ::pclose);
  std::array<char, 256> line{};
  if (!pipe || std::fgets(line.data(), line.size(), pipe.get()) == nullptr) return "";
  std::string text = line.data();
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

Finding find_programs() {
  const Status status = check_programs();
  if (status.ok()) return good("programs", program_folder());
  return bad("programs", status.message(), "build them all: cluster/deploy/build.sh");
}

Finding check_open_mpi() {
  const std::string line = first_line_of("mpirun --version 2>/dev/null");
  if (line.empty()) {
    return bad("Open MPI", "no mpirun in PATH", "cluster/deploy/setup.sh installs openmpi-bin");
  }
  if (line.find(" 4.1.") == std::string::npos) {
    return bad("Open MPI", line, "Weft is written for 4.1: install Debian 12's openmpi-bin");
  }
  return good("Open MPI", line);
}

Finding check_user() {
  if (::geteuid() != 0) return good("user", "not root: ranks run as this user");
  const passwd* user = ::getpwnam("weft");
  if (user == nullptr) {
    return bad("user", "root, and there is no user weft",
               "ranks never run as root: cluster/deploy/setup.sh makes the user, or call weft as "
               "another user");
  }
  return good("user", fmt::format("root; ranks run as weft (uid {})", user->pw_uid));
}

Finding check_shared_memory() {
  struct statvfs info {};
  if (::statvfs("/dev/shm", &info) != 0 || ::access("/dev/shm", W_OK) != 0) {
    return bad("shared memory", "/dev/shm is not writable",
               "mount a tmpfs there: mount -t tmpfs tmpfs /dev/shm");
  }
  const auto free = static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
  if (free < (int64_t{64} << 20)) {
    return bad("shared memory", show_bytes(free) + " free in /dev/shm",
               "at least 64 MiB: mount -o remount,size=1G /dev/shm (a container: --shm-size=1g)");
  }
  return good("shared memory", show_bytes(free) + " free in /dev/shm");
}

Finding check_limits() {
  rlimit files{}, processes{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  ::getrlimit(RLIMIT_NPROC, &processes);
  if (files.rlim_cur < 1024) {
    return bad("limits", fmt::format("{} open files", files.rlim_cur),
               "at least 1024: ulimit -n 4096, or nofile in /etc/security/limits.conf");
  }
  if (processes.rlim_cur != RLIM_INFINITY && processes.rlim_cur < 512) {
    return bad("limits", fmt::format("{} processes", processes.rlim_cur),
               "at least 512: ulimit -u 4096, or nproc in /etc/security/limits.conf");
  }
  return good("limits", fmt::format("{} open files", files.rlim_cur));
}

Finding check_names() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  if (name[0] == '\0') return bad("names", "the machine has no name", "hostname NAME");
  return good("names", fmt::format("this machine is {}; names need not resolve", name));
}

Finding check_disk(const std::string& data) {
  namespace fs = std::filesystem;
  fs::path folder = data;
  while (!fs::exists(folder) && folder.has_relative_path()) folder = folder.parent_path();
  struct statvfs info {};
  if (::statvfs(folder.c_str(), &info) != 0 || ::access(folder.c_str(), W_OK) != 0) {
    return bad("disk", folder.string() + " is not writable",
               "name a folder of yours with --data, or make this one writable");
  }
  const auto free = static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
  if (free < (int64_t{1} << 30)) {
    return bad("disk", fmt::format("{} free for {}", show_bytes(free), data),
               "at least 1 GiB: free some, or name a folder on another disk with --data");
  }
  return good("disk", fmt::format("{} free for {}", show_bytes(free), data));
}

std::vector<Finding> check_ports(const std::string& data) {
  const auto known = read_local_cluster(data);
  if (known && is_alive(LocalPrograms(data, *known).running("coordinator"))) {
    return {good("ports", fmt::format("this folder's coordinator listens on {}:{} and {}",
                                      known->address(), known->port(), known->agent_port()))};
  }
  if (!known || known->port() == 0) {
    const int port = free_port("127.0.0.1", kDefaultPort);
    if (port == kDefaultPort) return {good("ports", fmt::format("{} is free", port))};
    return {note("ports", fmt::format("{} is in use by another program", kDefaultPort),
                 fmt::format("'weft up' takes {}", port))};
  }
  std::vector<Finding> found;
  for (const auto& [option, port] : {std::pair<const char*, int>{"--port", known->port()},
                                     {"--agent-port", known->agent_port()}}) {
    const std::string what = fmt::format("port {}", port);
    if (port == 0 || listen_error(known->address(), port) == 0) {
      found.push_back(good(what, "free"));
    } else {
      found.push_back(bad(what, "this folder's, in use by another program",
                          fmt::format("'ss -ltnp' names it; or weft up {} N", option)));
    }
  }
  return found;
}

Finding check_gpu() {
  std::unique_ptr<void, int (*)(void*)> library(::dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL),
                                                ::dlclose);
  if (!library) return note("GPU", "no NVIDIA driver", "jobs run on the CPU");
  const std::string line =
      first_line_of("nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null");
  if (line.empty()) return note("GPU", "a driver without a GPU", "jobs run on the CPU");
  const std::string worker = program_folder() + "/weft-worker-cuda";
  if (::access(worker.c_str(), X_OK) == 0) return good("GPU", line);
  return note("GPU", line + ", but no " + worker,
              "jobs run on the CPU: build the preset cuda (docs/CUDA.md)");
}

Finding check_server(const Context& context) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return note("coordinator", "none known", "'weft up' starts one here");
  proto::HealthReport health;
  const Status status = client->get("status", health);
  if (!status.ok())
    return note("coordinator", status.message(), "see 'weft token' for its address");
  if (health.status() != "ok") {
    return bad("coordinator", health.problem(), "see its log in the data folder");
  }
  return good("coordinator",
              fmt::format("{} nodes ready, {} lost", health.nodes_ready(), health.nodes_lost()));
}

}  // namespace

int doctor(const Context& context) {
  const std::string data = data_folder(context.settings);
  std::vector<Finding> findings = {find_programs(), check_open_mpi(), check_user()};
  for (Finding& finding : check_ports(data)) findings.push_back(std::move(finding));
  for (const std::function<Finding()>& check : std::vector<std::function<Finding()>>{
           check_names, check_shared_memory, check_limits, [&] { return check_disk(data); },
           check_gpu, [&] { return check_server(context); }}) {
    findings.push_back(check());
  }
  bool failed = false;
  JsonWriter json(2);
  json.begin_object().key("checks").begin_array();
  for (const Finding& finding : findings) {
    failed = failed || finding.verdict == Verdict::kBad;
    static constexpr const char* kWords[] = {"ok", "note", "FAIL"};
    static constexpr Color kColors[] = {Color::kGreen, Color::kYellow, Color::kRed};
    const auto verdict = static_cast<size_t>(finding.verdict);
    json.begin_object().key("check").string(finding.what).key("result").string(kWords[verdict]);
    json.key("found").string(finding.found).key("remedy").string(finding.remedy).end_object();
    if (context.json) continue;
    print(fmt::format(
        "{} {:<14} {}\n",
        colored(context.terminal, kColors[verdict], fmt::format("{:<4}", kWords[verdict])),
        finding.what, finding.found));
    if (!finding.remedy.empty()) print(fmt::format("     {:<14} -> {}\n", "", finding.remedy));
  }
  json.end_array().end_object();
  if (context.json) print(json.take() + "\n");
  return failed ? kExitError : kExitOk;
}

}  // namespace weft::cli
