#include "coordinator/cli/daemon.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "coordinator/cli/settings.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

// Field 22 of /proc/PID/stat; 0: no such process, or one that has ended.
int64_t start_time(int pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  const size_t end = text.rfind(')');
  if (end == std::string::npos || end + 2 >= text.size() || text[end + 2] == 'Z') return 0;
  size_t at = end + 2;
  for (int field = 3; field < 22; ++field) {
    at = text.find(' ', at);
    if (at == std::string::npos) return 0;
    ++at;
  }
  return std::strtoll(text.c_str() + at, nullptr, 10);
}

// In the child, between fork and exec: system calls only.
[[noreturn]] void become(char* const* argv, int log, int report) {
  ::setsid();
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, STDIN_FILENO);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  for (int fd = 3; fd < 256; ++fd) {
    if (fd != report) ::close(fd);
  }
  ::execv(argv[0], argv);
  const int error = errno;
  [[maybe_unused]] const ssize_t told = ::write(report, &error, sizeof error);
  ::_exit(127);
}

sockaddr_in socket_address(const std::string& address, int port) {
  sockaddr_in made{};
  made.sin_family = AF_INET;
  made.sin_port = htons(static_cast<uint16_t>(port));
  if (::inet_pton(AF_INET, address.c_str(), &made.sin_addr) != 1) made.sin_addr.s_addr = INADDR_ANY;
  return made;
}

}  // namespace

Result<Process> start_daemon(const std::vector<std::string>& argv, const std::string& log) {
  std::vector<std::string> copies = argv;
  std::vector<char*> raw;
  for (std::string& argument : copies) raw.push_back(argument.data());
  raw.push_back(nullptr);
  const int file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  int pipe[2];
  if (file < 0 || ::pipe2(pipe, O_CLOEXEC) != 0) {
    return fail(Code::kUnavailable, fmt::format("cannot write {}: {}", log, std::strerror(errno)));
  }
  const pid_t pid = ::fork();
  if (pid == 0) become(raw.data(), file, pipe[1]);
  ::close(pipe[1]);
  ::close(file);
  int error = 0;
  const bool failed = pid < 0 || ::read(pipe[0], &error, sizeof error) > 0;
  ::close(pipe[0]);
  if (failed) {
    if (pid > 0) ::waitpid(pid, nullptr, 0);
    return fail(Code::kUnavailable,
                fmt::format("cannot start {}: {}", argv[0], std::strerror(error ? error : errno)));
  }
  return Process{pid, start_time(pid)};
}

bool is_alive(const Process& process) {
  if (process.pid <= 0) return false;
  ::waitpid(process.pid, nullptr, WNOHANG);  // one that we started ourselves
  return process.started != 0 && start_time(process.pid) == process.started;
}

Process read_pid_file(const std::string& path) {
  std::ifstream file(path);
  Process process;
  if (!(file >> process.pid >> process.started) || !is_alive(process)) return Process{};
  return process;
}

Status write_pid_file(const std::string& path, const Process& process) {
  return write_text_file(path, fmt::format("{} {}\n", process.pid, process.started), 0644);
}

std::vector<std::string> arguments_of(const Process& process) {
  std::vector<std::string> words;
  std::ifstream file(fmt::format("/proc/{}/cmdline", process.pid), std::ios::binary);
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return is_alive(process) ? words : std::vector<std::string>();
}

std::vector<Process> find_processes(const std::string& program, const std::string& word) {
  std::vector<Process> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const int pid = std::atoi(entry.path().filename().c_str());
    if (pid <= 0) continue;
    std::ifstream file(entry.path() / "cmdline", std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const std::string name = fs::path(text.substr(0, text.find('\0'))).filename().string();
    if (name != program || text.find(word) == std::string::npos) continue;
    if (const int64_t started = start_time(pid); started != 0) found.push_back({pid, started});
  }
  return found;
}

bool stop_processes(const std::vector<Process>& processes, double seconds) {
  const auto all_gone = [&] {
    for (const Process& process : processes) {
      if (is_alive(process)) return false;
    }
    return true;
  };
  for (const Process& process : processes) {
    if (is_alive(process)) ::kill(process.pid, SIGTERM);
  }
  if (wait_until(seconds, all_gone)) return true;
  for (const Process& process : processes) {
    if (is_alive(process)) ::kill(process.pid, SIGKILL);
  }
  wait_until(5, all_gone);
  return false;
}

std::string program_folder() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path().string();
}

int listen_error(const std::string& address, int port) {
  const int probe = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in at = socket_address(address, port);
  const void* raw = &at;
  const bool free =
      ::bind(probe, static_cast<const sockaddr*>(raw), sizeof at) == 0 && ::listen(probe, 1) == 0;
  const int error = free ? 0 : errno;
  ::close(probe);
  return error;
}

int free_port(const std::string& address, int first) {
  for (int port = first; port < 65536; ++port) {
    if (listen_error(address, port) == 0) return port;
  }
  return 0;
}

Status check_reachable(const std::string& host, int port, int timeout_ms) {
  const auto refuse = [&](const char* why) {
    return Status(Code::kUnavailable, fmt::format("cannot reach {}:{}: {}", host, port, why));
  };
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (const int code = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found)) {
    return refuse(::gai_strerror(code));
  }
  int error = EHOSTUNREACH;
  for (const addrinfo* at = found; at != nullptr && error != 0; at = at->ai_next) {
    const int file = ::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    error = ::connect(file, at->ai_addr, at->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      pollfd waiting{file, POLLOUT, 0};
      socklen_t size = sizeof error;
      error = ETIMEDOUT;
      if (::poll(&waiting, 1, timeout_ms) == 1) {
        ::getsockopt(file, SOL_SOCKET, SO_ERROR, &error, &size);
      }
    }
    ::close(file);
  }
  ::freeaddrinfo(found);
  return error == 0 ? Status() : refuse(std::strerror(error));
}

std::string file_tail(const std::string& path, int lines) {
  std::ifstream file(path, std::ios::binary);
  file.seekg(0, std::ios::end);
  const int64_t size = file.tellg();
  file.seekg(std::max<int64_t>(0, size - 16384));
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  size_t at = text.size();
  for (int i = 0; i <= lines && at != std::string::npos && at > 0; ++i) {
    at = text.rfind('\n', at - 1);
  }
  return at == std::string::npos || at == 0 ? text : text.substr(at + 1);
}

bool wait_until(double seconds, const std::function<bool()>& done) {
  const auto limit = std::chrono::steady_clock::now() +
                     std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
  while (!done()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return true;
}

}  // namespace weft::cli
