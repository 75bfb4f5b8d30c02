// Where the processes of an attempt print to: a named pipe each in the run folder, which the
// shepherd reads and keeps in a log file of the attempt's folder.
//
// Thread safety: free functions; redirect_output changes the process.
#pragma once

#include <string>

#include "proto/base/status.h"
#include "proto/launch.pb.h"

namespace weft {

inline constexpr int kLauncherLog = -1;  // in place of a rank: mpirun and orted

std::string log_name(int rank);                                     // "rank-0.log"
std::string log_file(const proto::LaunchRecord& record, int rank);  // its path
std::string output_pipe(const proto::LaunchRecord& record, int rank);

// Standard output and error of this process go to the rank's pipe. Error: no shepherd reads it.
Status redirect_output(const proto::LaunchRecord& record, int rank);

}  // namespace weft
