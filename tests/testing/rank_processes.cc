#include "tests/testing/rank_processes.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <thread>

#include "proto/base/status.h"
#include "tests/testing/socket_communicator.h"

namespace weft::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kRank = "WEFT_TEST_RANK";
constexpr const char* kSockets = "WEFT_TEST_SOCKETS";  // by rank; its own is -1
constexpr std::chrono::milliseconds kNap{5};

[[noreturn]] void refuse(const char* call) {
  throw StatusError(Status(Code::kUnavailable, std::string(call) + ": " + std::strerror(errno)));
}

// A socket from every rank to every other one; closed by whoever is replaced by another program.
std::vector<std::vector<int>> make_sockets(int ranks) {
  const auto size = static_cast<size_t>(ranks);
  std::vector<std::vector<int>> sockets(size, std::vector<int>(size, -1));
  for (size_t a = 0; a < size; ++a) {
    for (size_t b = 0; b < a; ++b) {
      std::array<int, 2> ends{};
      if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
        refuse("socketpair");
      }
      sockets[a][b] = ends[0];
      sockets[b][a] = ends[1];
    }
  }
  return sockets;
}

[[noreturn]] void become(int rank, const std::vector<int>& sockets, std::vector<char*>& argv) {
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::string text;
  for (const int socket : sockets) {
    text += std::to_string(socket) + " ";
    if (socket >= 0) (void)::fcntl(socket, F_SETFD, 0);
  }
  (void)::setenv(kRank, std::to_string(rank).c_str(), 1);
  (void)::setenv(kSockets, text.c_str(), 1);
  (void)::execv("/proc/self/exe", argv.data());
  ::_exit(127);
}

std::vector<pid_t> start(const RankProcesses& what) {
  const std::vector<std::vector<int>> sockets = make_sockets(what.ranks);
  std::vector<std::string> arguments = what.arguments;
  arguments.insert(arguments.begin(), "rank");
  std::vector<char*> argv;
  for (std::string& each : arguments) argv.push_back(each.data());
  argv.push_back(nullptr);
  std::vector<pid_t> processes;
  for (int rank = 0; rank < what.ranks; ++rank) {
    const pid_t process = ::fork();
    if (process < 0) refuse("fork");
    if (process == 0) become(rank, sockets[static_cast<size_t>(rank)], argv);
    processes.push_back(process);
  }
  for (const auto& row : sockets) {
    for (const int socket : row) {
      if (socket >= 0) ::close(socket);
    }
  }
  return processes;
}

// Whether the process has ended, and how.
bool ended(pid_t process, RankEnd& end) {
  int status = 0;
  if (::waitpid(process, &status, WNOHANG) != process) return false;
  if (WIFEXITED(status)) end.status = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) end.signal = WTERMSIG(status);
  return true;
}

}  // namespace

std::string RankEnd::text() const {
  if (late) return "had to be killed";
  if (signal != 0) return "was ended by signal " + std::to_string(signal);
  return "ended with status " + std::to_string(status);
}

std::vector<RankEnd> run_rank_processes(const RankProcesses& what) {
  std::vector<pid_t> processes = start(what);
  std::vector<RankEnd> ends(processes.size());
  Clock::time_point deadline = Clock::now() + what.limit;
  size_t left = processes.size();
  while (left > 0) {
    const bool over = Clock::now() >= deadline;
    for (size_t r = 0; r < processes.size(); ++r) {
      if (processes[r] == 0) continue;
      if (over && !ends[r].late) {
        ends[r].late = true;
        (void)::kill(processes[r], SIGKILL);
      }
      if (!ended(processes[r], ends[r])) continue;
      processes[r] = 0;
      --left;
      if (!ends[r].well()) deadline = std::min(deadline, Clock::now() + what.grace);
    }
    std::this_thread::sleep_for(kNap);
  }
  return ends;
}

std::unique_ptr<Communicator> process_world() {
  const char* rank = std::getenv(kRank);
  const char* text = std::getenv(kSockets);
  if (rank == nullptr || text == nullptr) return nullptr;
  std::istringstream in(text);
  std::vector<int> sockets;
  for (int socket = 0; in >> socket;) sockets.push_back(socket);
  auto world = make_socket_communicator(std::atoi(rank), sockets);
  (void)::unsetenv(kRank);
  (void)::unsetenv(kSockets);
  return world;
}

}  // namespace weft::testing
