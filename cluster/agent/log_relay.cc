#include "cluster/agent/log_relay.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "cluster/process/output_pipe.h"

namespace weft {

LogRelay::LogRelay(proto::AttemptRef attempt, std::string folder, uid_t owner,
                   std::vector<int> ranks, Send send)
    : attempt_(std::move(attempt)), folder_(std::move(folder)), owner_(owner),
      send_(std::move(send)) {
  for (const int rank : ranks) logs_[rank];
}

std::string LogRelay::path_of(int rank) const { return folder_ + "/" + log_name(rank); }

void LogRelay::poll() {
  for (auto& [rank, log] : logs_) {
    while (send_some(rank, log)) {
    }
  }
}

bool LogRelay::send_some(int rank, Log& log) {
  if (log.sent - log.acknowledged >= kLogWindowBytes) return false;
  const int fd = ::open(path_of(rank).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return false;
  struct stat info {};
  std::string data;
  if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_nlink == 1 &&
      info.st_uid == owner_) {
    log.size = info.st_size;
    data.resize(static_cast<size_t>(std::clamp(log.size - log.sent, int64_t{0}, kLogChunkBytes)));
    const ssize_t got = ::pread(fd, data.data(), data.size(), log.sent);
    data.resize(got > 0 ? static_cast<size_t>(got) : 0);
  }
  ::close(fd);
  if (data.empty()) return false;
  proto::NodeFrame frame;
  auto& chunk = *frame.mutable_log();
  *chunk.mutable_attempt() = attempt_;
  chunk.set_rank(rank);
  chunk.set_offset(log.sent);
  chunk.set_data(data);
  if (!send_(frame)) return false;
  log.sent += static_cast<int64_t>(data.size());
  return true;
}

void LogRelay::take(const proto::LogAck& ack) {
  const auto found = logs_.find(ack.rank());
  if (found == logs_.end()) return;
  found->second.acknowledged = std::max(found->second.acknowledged, int64_t{ack.offset()});
  found->second.sent = std::max(found->second.sent, found->second.acknowledged);
}

void LogRelay::reconnected() {
  for (auto& [rank, log] : logs_) log.sent = log.acknowledged;
}

bool LogRelay::drained() const {
  return std::all_of(logs_.begin(), logs_.end(), [](const auto& each) {
    return each.second.acknowledged >= each.second.size;
  });
}

}  // namespace weft
