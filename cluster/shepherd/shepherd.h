// One attempt's processes on one node: mpirun (on the head node) and orted, hence the ranks. It
// outlives the agent, which finds it again by its socket, and it is the fence: when the lease, on
// CLOCK_BOOTTIME, has run out, it kills everything it has started.
//
// It runs as the user that ranks run as. Files: <folder>/shepherd.state (proto) and
// the logs (log_keeper.h); socket: <run folder>/s.
//
// Thread safety: one thread. Ownership: a program of its own.
// Invariants: 1. as a subreaper it is an ancestor of every process of the attempt on this node,
// and it ends only once all of them have. 2. mpirun and orted die with it. 3. what it did last is
// in the state file before it ends, unless the disk had no room for ten minutes.
#pragma once

#include <string>

#include "proto/launch.pb.h"

namespace weft {

std::string shepherd_socket(const proto::LaunchRecord& record);
std::string shepherd_state_file(const proto::LaunchRecord& record);
std::string launch_record_file(const proto::LaunchRecord& record);

// weft-agent --shepherd RECORD: runs until the attempt is over on this node. The exit status is 0
// unless the shepherd itself could not work. `lease_seconds`: until the agent's first renewal.
int shepherd_main(const std::string& record_path, double lease_seconds);

// weft-agent --remote-shell HOST COMMAND...: what mpirun calls. 0: orted runs on that node.
int remote_shell_main(const std::string& host, const std::string& command);

}  // namespace weft
