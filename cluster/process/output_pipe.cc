#include "cluster/process/output_pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace weft {

std::string log_name(int rank) {
  return rank == kLauncherLog ? "launcher.log" : "rank-" + std::to_string(rank) + ".log";
}

std::string log_file(const proto::LaunchRecord& record, int rank) {
  return record.folder() + "/" + log_name(rank);
}

std::string output_pipe(const proto::LaunchRecord& record, int rank) {
  return record.run_folder() + "/" + log_name(rank) + ".pipe";
}

Status redirect_output(const proto::LaunchRecord& record, int rank) {
  const std::string path = output_pipe(record, rank);
  // O_NONBLOCK: without a reader this fails instead of waiting for one.
  const int fd = ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0)
    return Status(Code::kUnavailable, "cannot write " + path + ": " + std::strerror(errno));
  ::fcntl(fd, F_SETFL, 0);
  std::fflush(nullptr);
  ::dup2(fd, STDOUT_FILENO);
  ::dup2(fd, STDERR_FILENO);
  ::close(fd);
  return {};
}

}  // namespace weft
