#include "cluster/shepherd/log_keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "cluster/process/output_pipe.h"

namespace weft {
namespace {

constexpr int kRetryMs = 200;
constexpr size_t kReadBytes = 64 << 10;

Result<int> make_pipe(const std::string& path) {
  ::unlink(path.c_str());  // of a shepherd before
  // Open for writing too, so that it never reads as ended.
  const int fd = ::mkfifo(path.c_str(), 0600) == 0
                     ? ::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC)
                     : -1;
  if (fd < 0) return fail(Code::kUnavailable, "cannot make " + path + ": " + std::strerror(errno));
  return fd;
}

std::string mark(int64_t lines, int64_t bytes) {
  return "[weft: " + std::to_string(lines) + " lines (" + std::to_string(bytes) +
         " bytes) are left out here: this log could not be written to, and " +
         std::to_string(kHeldBytesMax >> 10) + " KiB of it were held already]\n";
}

}  // namespace

LogKeeper::~LogKeeper() {
  finish();
  if (stop_ >= 0) ::close(stop_);
  for (const Log& log : logs_) {
    ::close(log.pipe);
    if (log.file >= 0) ::close(log.file);
  }
}

Status LogKeeper::start(const proto::LaunchRecord& record) {
  std::vector<int> ranks{kLauncherLog};
  for (const auto& rank : record.ranks()) {
    if (rank.node() == record.node()) ranks.push_back(rank.rank());
  }
  for (const int rank : ranks) {
    WEFT_ASSIGN_OR_RETURN(const int pipe, make_pipe(output_pipe(record, rank)));
    Log& log = logs_.emplace_back();
    log.path = log_file(record, rank);
    log.pipe = pipe;
  }
  stop_ = ::eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { run(); });
  return {};
}

void LogKeeper::run() {
  std::vector<pollfd> waits;
  for (const Log& log : logs_) waits.push_back({log.pipe, POLLIN, 0});
  waits.push_back({stop_, POLLIN, 0});
  bool all_written = true;
  while ((waits.back().revents & POLLIN) == 0) {
    ::poll(waits.data(), waits.size(), all_written ? -1 : kRetryMs);
    all_written = true;
    for (size_t i = 0; i < logs_.size(); ++i) {
      if ((waits[i].revents & POLLIN) != 0) read(logs_[i]);
      all_written = write(logs_[i]) && all_written;
    }
  }
}

void LogKeeper::finish() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t told = ::write(stop_, &one, sizeof one);
  thread_.join();
  for (Log& log : logs_) {
    while (read(log)) write(log);
  }
}

bool LogKeeper::flush() {
  bool all_written = true;
  for (Log& log : logs_) all_written = write(log) && all_written;
  return all_written;
}

// false: the pipe is empty.
bool LogKeeper::read(Log& log) {
  std::array<char, kReadBytes> buffer;
  const ssize_t got = ::read(log.pipe, buffer.data(), buffer.size());
  if (got > 0) hold(log, {buffer.data(), static_cast<size_t>(got)});
  return got > 0 || errno == EINTR;
}

// Whole lines as far as they fit; nothing more before the mark is written.
void LogKeeper::hold(Log& log, std::string_view bytes) {
  std::string_view fitting = bytes;
  if (log.bytes_left_out > 0) {
    fitting = {};
  } else if (log.held.size() + bytes.size() > kHeldBytesMax) {
    fitting = bytes.substr(0, kHeldBytesMax - log.held.size());
    fitting = fitting.substr(0, fitting.rfind('\n') + 1);
  }
  log.held += fitting;
  bytes.remove_prefix(fitting.size());
  log.bytes_left_out += static_cast<int64_t>(bytes.size());
  log.lines_left_out += std::count(bytes.begin(), bytes.end(), '\n');
}

// true: everything is in the file.
bool LogKeeper::write(Log& log) {
  if (log.file < 0) {
    log.file =
        ::open(log.path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (log.file < 0) return log.held.empty() && log.bytes_left_out == 0;
  }
  while (!log.held.empty() || log.bytes_left_out > 0) {
    if (log.held.empty()) {
      log.held = (log.mid_line ? "\n" : "") + mark(log.lines_left_out, log.bytes_left_out);
      log.bytes_left_out = log.lines_left_out = 0;
    }
    const ssize_t written = ::write(log.file, log.held.data(), log.held.size());
    if (written < 0 && errno != EINTR) return false;
    if (written <= 0) continue;
    log.mid_line = log.held[static_cast<size_t>(written) - 1] != '\n';
    log.held.erase(0, static_cast<size_t>(written));
  }
  return true;
}

}  // namespace weft
