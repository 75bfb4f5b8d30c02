// Keeps what an attempt's processes on this node print: reads their pipes
// (cluster/process/output_pipe.h) and appends to the log files.
//
// Thread safety: one thread uses it; it has another of its own for reading and writing.
// Ownership: owns pipes and files; the pipes' names go with the run folder.
// Invariants: 1. a file that cannot be written to (a full disk) stops no process that prints:
// kHeldBytesMax of each log are held and written, in order, once there is room. 2. what is beyond
// that is counted, and a line in its place says how much is missing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "proto/base/status.h"
#include "proto/launch.pb.h"

namespace weft {

inline constexpr size_t kHeldBytesMax = 1 << 20;

class LogKeeper {
 public:
  LogKeeper() = default;
  ~LogKeeper();
  LogKeeper(const LogKeeper&) = delete;
  LogKeeper& operator=(const LogKeeper&) = delete;

  // Makes the pipes of the record's node, its ranks' and the launcher's, and reads from now on.
  Status start(const proto::LaunchRecord& record);
  // For after every process has ended: takes what the pipes still hold and reads no more.
  void finish();
  // After finish(): true once everything is in the files; else call it again later.
  bool flush();

 private:
  struct Log {
    std::string path;
    int pipe = -1, file = -1;
    std::string held;       // read and not yet written
    bool mid_line = false;  // the last byte written ended no line
    int64_t bytes_left_out = 0, lines_left_out = 0;
  };
  static bool read(Log& log);
  static void hold(Log& log, std::string_view bytes);
  static bool write(Log& log);
  void run();

  std::vector<Log> logs_;
  int stop_ = -1;  // an eventfd
  std::thread thread_;
};

}  // namespace weft
