// What /proc tells of processes, and small files written and read with care.
#include <dirent.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <thread>

#include "cluster/process/process.h"
#include "proto/base/hash.h"

namespace weft {
namespace {

struct Stat {
  char state = 'X';
  pid_t parent = 0;
  uint64_t start_time = 0;
};

// /proc/PID/stat; the program's name in it may contain spaces and parentheses.
std::optional<Stat> stat_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const size_t end = line.rfind(')');
  if (end == std::string::npos) return std::nullopt;
  std::istringstream rest(line.substr(end + 1));
  Stat stat;
  rest >> stat.state >> stat.parent;
  std::string skipped;
  for (int field = 5; field < 22; ++field) rest >> skipped;
  rest >> stat.start_time;
  return stat;
}

std::string state_words(char state) {
  switch (state) {
    case 'R':
      return "running";
    case 'S':
      return "sleeping";
    case 'D':
      return "waiting for a device";
    case 'T':
    case 't':
      return "stopped";
    default:
      return "gone";
  }
}

void each_pid(const std::function<void(pid_t)>& visit) {
  DIR* folder = ::opendir("/proc");
  if (folder == nullptr) return;
  while (const dirent* entry = ::readdir(folder)) {
    const pid_t pid = std::atoi(entry->d_name);
    if (pid > 0) visit(pid);
  }
  ::closedir(folder);
}

Status failed(const std::string& path) {
  const Code code = errno == ENOENT                     ? Code::kNotFound
                    : errno == ENOSPC || errno == EDQUOT ? Code::kResourceExhausted
                    : errno == EACCES || errno == EPERM  ? Code::kPermissionDenied
                                                         : Code::kUnavailable;
  return Status(code, path + ": " + std::strerror(errno));
}

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

Status write_and_sync(int fd, const std::string& path, const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t wrote = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return failed(path);
    done += static_cast<size_t>(wrote);
  }
  return ::fsync(fd) == 0 ? Status() : failed(path);
}

}  // namespace

uint64_t start_time_of(pid_t pid) {
  const auto stat = stat_of(pid);
  return stat ? stat->start_time : 0;
}

std::string process_state(pid_t pid) {
  const auto stat = pid > 0 ? stat_of(pid) : std::nullopt;
  return state_words(stat ? stat->state : 'X');
}

bool is_alive(pid_t pid, uint64_t start_time) {
  const auto stat = pid > 0 ? stat_of(pid) : std::nullopt;
  return stat && stat->start_time == start_time && stat->state != 'Z' && stat->state != 'X';
}

std::vector<pid_t> descendants_of(pid_t pid) {
  std::multimap<pid_t, pid_t> children;
  each_pid([&](pid_t each) {
    if (const auto stat = stat_of(each)) children.emplace(stat->parent, each);
  });
  std::vector<pid_t> found{pid};
  for (size_t i = 0; i < found.size(); ++i) {
    const auto [from, to] = children.equal_range(found[i]);
    for (auto it = from; it != to; ++it) found.push_back(it->second);
  }
  found.erase(found.begin());
  return found;
}

bool kill_descendants(double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (;;) {
    while (reap_any()) {
    }
    const auto left = descendants_of(::getpid());
    if (left.empty()) return true;
    for (const pid_t pid : left) ::kill(pid, SIGKILL);
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

std::vector<pid_t> processes_with(uid_t uid, const std::string& variable) {
  std::vector<pid_t> found;
  each_pid([&](pid_t pid) {
    const std::string folder = "/proc/" + std::to_string(pid);
    struct stat info {};
    if (::stat(folder.c_str(), &info) != 0 || info.st_uid != uid) return;
    std::ifstream file(folder + "/environ");
    for (std::string each; std::getline(file, each, '\0');) {
      if (each == variable) {
        found.push_back(pid);
        return;
      }
    }
  });
  return found;
}

int64_t boot_time_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

Result<User> find_user(const std::string& name) {
  std::array<char, 4096> space{};
  passwd entry{};
  passwd* found = nullptr;
  ::getpwnam_r(name.c_str(), &entry, space.data(), space.size(), &found);
  if (found == nullptr) {
    return fail(Code::kFailedPrecondition,
                "there is no user " + name + ", as which ranks run when the agent is root; " +
                    "run cluster/deploy/setup.sh");
  }
  if (found->pw_uid == 0) {
    return fail(Status::invalid("user", name, "must not be root: no rank runs as root"));
  }
  return User{found->pw_uid, found->pw_gid, found->pw_dir};
}

std::string own_program() {
  std::array<char, 4096> path{};
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size() - 1);
  return length > 0 ? std::string(path.data(), static_cast<size_t>(length)) : "";
}

Status write_file(const std::string& path, const std::string& bytes, mode_t mode) {
  const std::string temporary = path + "." + random_hex(4);
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return failed(temporary);
  Status status = write_and_sync(fd, path, bytes);
  ::close(fd);
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) status = failed(path);
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

namespace {
// At most `bytes_max` from the start, else an error; or, as a tail, at most so many from the end.
Result<std::string> read_part(const std::string& path, int64_t bytes_max, bool tail) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)};
  if (file.fd < 0) return fail(failed(path));
  struct stat info {};
  if (::fstat(file.fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return fail(Code::kPermissionDenied, path + ": not a plain file");
  }
  if (info.st_size > bytes_max && !tail) {
    return fail(Code::kResourceExhausted, path + ": too large");
  }
  std::string bytes(static_cast<size_t>(std::min<int64_t>(info.st_size, bytes_max)), '\0');
  const off_t start = info.st_size - static_cast<off_t>(bytes.size());
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::pread(file.fd, bytes.data() + done, bytes.size() - done,
                                start + static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(failed(path));
    if (got == 0) break;  // it became shorter
    done += static_cast<size_t>(got);
  }
  bytes.resize(done);
  return bytes;
}
}  // namespace

Result<std::string> read_file(const std::string& path, int64_t bytes_max) {
  return read_part(path, bytes_max, false);
}

Result<std::string> read_tail(const std::string& path, int64_t bytes) {
  return read_part(path, bytes, true);
}

}  // namespace weft
